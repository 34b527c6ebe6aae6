package integration

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nook/internal/testenv"
)

// The first version of what a nook leaves for later ones: the record and the
// frames as they were, in testdata/older/v1 and here. Nothing of this is taken
// from today's code, and none of it may ever change: containers that were
// started then are still there.
const (
	oldID    = "9390e0ee55ad28292122dee57ec202cd6a6ba58a61ac2c3a73c589f796c9b459"
	oldImage = "sha256:b8b79beb6e52e88ad93ce7169cb0a6b8e57da41bd3504131884eedeef3d84ca5"
)

// Version 1's frames.
const (
	oldHello    = "\x01\x00\x00\x00\x0d" + `{"version":1}`
	oldDone     = "\x09\x00\x00\x00\x0e" + `{"exitCode":0}`
	oldStopped  = "\x09\x00\x00\x00\x10" + `{"exitCode":130}`
	oldRefused  = "\x09\x00\x00\x00\x6b" + `{"error":"exec \"nosuch\": not found in PATH: no such file or directory","errno":2,"code":127,"exitCode":0}`
	oldStdout   = "\x04\x00\x00\x00\x04" + "out\n"
	oldStderr   = "\x05\x00\x00\x00\x04" + "err\n"
	oldExit7    = "\x06\x00\x00\x00\x0a" + `{"code":7}`
	oldTaken    = 7
	oldStdin    = 32
	oldStdinEOF = 33
	oldSignal   = 34
	oldRequest  = 38
)

// oldMonitor answers as version 1's monitors do.
type oldMonitor struct {
	dir  string
	lock *os.File
	life *exec.Cmd // whose pid is the monitor's and the container's

	mu    sync.Mutex
	asked []string // the requests, as JSON
	got   []string // the frames that came later: "34 \x01"
}

// newOldMonitor puts the record into h's data root and serves it.
func newOldMonitor(t *testing.T, h *host, m mode) *oldMonitor {
	t.Helper()
	o := &oldMonitor{dir: filepath.Join(h.root, "containers", oldID), life: exec.Command("sleep", "1000")}
	if err := o.life.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = o.life.Process.Kill()
		_ = o.life.Wait()
	})
	pid := strconv.Itoa(o.life.Process.Pid)
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$IDS", m.name, "$PID", pid, "$START", strings.Fields(string(stat))[21], "$BOOT", strings.TrimSpace(string(boot)))
	for _, name := range []string{"config.json", "state.json", "log"} {
		text, err := os.ReadFile(filepath.Join("testdata/older/v1", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(o.dir, name), fill.Replace(string(text)))
	}
	for _, name := range []string{"upper", "work", "../names"} {
		if err := os.MkdirAll(filepath.Join(o.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../"+oldID, filepath.Join(o.dir, "../names/old")); err != nil {
		t.Fatal(err)
	}
	if o.lock, err = os.Open(o.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.lock.Close() })
	if err := syscall.Flock(int(o.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	// The path of a unix socket has 107 bytes.
	l, err := net.Listen("unix", "/proc/self/fd/"+strconv.Itoa(int(o.lock.Fd()))+"/sock")
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go o.serve(conn)
		}
	}()
	return o
}

// next reads a frame of version 1.
func next(r io.Reader) (kind byte, payload []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, binary.BigEndian.Uint32(header[1:]))
	_, err = io.ReadFull(r, payload)
	return header[0], payload, err
}

func (o *oldMonitor) serve(conn net.Conn) {
	defer conn.Close()
	_, _ = io.WriteString(conn, oldHello)
	kind, payload, err := next(conn)
	if err != nil || kind != oldRequest {
		return
	}
	var request struct {
		Verb string
		Keep bool
		Exec struct {
			Args      []string
			OpenStdin bool
		}
	}
	if json.Unmarshal(payload, &request) != nil {
		return
	}
	o.mu.Lock()
	o.asked = append(o.asked, string(payload))
	o.mu.Unlock()
	say := func(frames ...string) { _, _ = io.WriteString(conn, strings.Join(frames, "")) }
	switch request.Verb {
	case "stop":
		if o.end() == nil {
			say(oldStopped)
		}
	case "exec":
		if request.Exec.Args[0] == "nosuch" {
			say(oldRefused)
			return
		}
		say(oldDone, oldStdout, oldStderr)
		if request.Exec.OpenStdin {
			o.read(conn, oldStdinEOF)
		}
		say(oldExit7)
	case "attach":
		say(oldDone, oldStdout)
		o.read(conn, oldSignal)
		say(oldExit7)
	default:
		say(oldDone)
	}
}

// read keeps what a client sends until a kind of frame came, and tells it that
// its input was taken.
func (o *oldMonitor) read(conn net.Conn, last byte) {
	for {
		kind, payload, err := next(conn)
		if err != nil {
			return
		}
		o.mu.Lock()
		o.got = append(o.got, strconv.Itoa(int(kind))+" "+string(payload))
		o.mu.Unlock()
		if kind == oldStdin {
			_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte{oldTaken, 0, 0, 0, 4}, uint32(len(payload))))
		}
		if kind == last {
			return
		}
	}
}

// end is the end of the container, before who asked for it is told.
func (o *oldMonitor) end() error {
	text, err := os.ReadFile("testdata/older/v1/exited.json")
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(o.dir, "new"), text, 0o600)
	return errors.Join(err, os.Rename(filepath.Join(o.dir, "new"), filepath.Join(o.dir, "state.json")),
		os.Remove(filepath.Join(o.dir, "sock")), o.lock.Close())
}

// was takes the requests and the frames that came since it was asked last.
func (o *oldMonitor) was() (asked, got []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	asked, got, o.asked, o.got = o.asked, o.got, nil, nil
	return asked, got
}

// wantAsked checks that one request came, which says at least this.
func (o *oldMonitor) wantAsked(t *testing.T, request string) (got []string) {
	t.Helper()
	asked, got := o.was()
	var have, want map[string]any
	if err := json.Unmarshal([]byte(request), &want); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 || json.Unmarshal([]byte(asked[0]), &have) != nil {
		t.Errorf("the monitor was asked %q, want %s", asked, request)
		return got
	}
	for key, value := range want {
		a, _ := json.Marshal(have[key])
		b, _ := json.Marshal(value)
		if string(a) != string(b) {
			t.Errorf("%s of the request %s: got %s, want %s", key, asked[0], a, b)
		}
	}
	for key := range maps.Keys(have) {
		if _, ok := want[key]; !ok {
			t.Logf("version 1 does not know %s of the request %s", key, asked[0])
		}
	}
	return got
}

// TestOldestNook: today's commands beside a container of version 1.
func TestOldestNook(t *testing.T) {
	testenv.Need(t, "userns", testenv.UserNS)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		o := newOldMonitor(t, h, m)

		out := h.run(t, "nook", "ps", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Image}} {{.State}} {{.Labels}} {{.Status}}")
		// Its image is not in this store, and so its id is shown (moby, daemon/list.go).
		if !strings.HasPrefix(out, oldID+" old "+oldImage+" running tier=back Up ") || !strings.HasSuffix(out, " (health: starting)\n") {
			t.Errorf("ps says %q", out)
		}
		want(t, "inspect", h.run(t, "nook", "inspect", "-f", "{{.State.Status}} {{.Config.StopSignal}} {{.HostConfig.RestartPolicy.Name}} {{.Config.Hostname}}", "old"),
			"running INT on-failure older\n")
		want(t, "logs", h.run(t, "nook", "logs", "old"), "out\npart")
		want(t, "logs -t", h.run(t, "nook", "logs", "-t", "-n", "1", oldID[:6]), "")
		if said, code := h.answer(t, "nook", "rm", "old"); code != 125 || !strings.Contains(said, "container is running") {
			t.Errorf("rm ends with %d and says %q", code, said)
		}
		h.run(t, "nook", "start", "old") // it runs
		if asked, _ := o.was(); len(asked) != 0 {
			t.Errorf("what needs no monitor asked it %q", asked)
		}
		t.Run("exec", func(t *testing.T) { oldExec(t, h, o) })
		t.Run("attach", func(t *testing.T) {
			cmd := h.cmd("nook", "attach", "--no-stdin", "old")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if word, err := readWord(out); err != nil || word != "out\n" {
				t.Fatalf("it says %q, %v", word, err)
			}
			if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			want(t, "code", strconv.Itoa(cmd.ProcessState.ExitCode()), "7")
			if got := o.wantAsked(t, `{"verb":"attach"}`); !slices.Contains(got, "34 \x01") {
				t.Errorf("it sent %q, want SIGHUP", got)
			}
		})
		for _, tc := range []struct {
			args    []string
			request string
		}{
			{[]string{"kill", "-s", "USR1", "old"}, `{"verb":"signal","signal":10}`},
			{[]string{"pause", "old"}, `{"verb":"pause"}`},
			{[]string{"unpause", "old"}, `{"verb":"unpause"}`},
			{[]string{"wait", "old"}, `{"verb":"wait"}`},
			{[]string{"stop", "-t", "3", "-s", "QUIT", "old"}, `{"verb":"stop","signal":3,"timeout":3}`},
		} {
			h.run(t, "nook", tc.args...)
			o.wantAsked(t, tc.request)
		}
		want(t, "ps after stop", h.run(t, "nook", "ps", "-a", "--format", "{{.State}}"), "exited\n")
		want(t, "wait after stop", h.run(t, "nook", "wait", "old"), "130\n")
		h.run(t, "nook", "rm", "old")
		want(t, "ps after rm", h.run(t, "nook", "ps", "-aq"), "")
	})
}

func oldExec(t *testing.T, h *host, o *oldMonitor) {
	cmd := h.cmd("nook", "exec", "-i", "-e", "C=d", "-u", "alice", "-w", "/srv", "old", "cat", "-")
	cmd.Stdin = strings.NewReader("typed\n")
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run()
	want(t, "code", strconv.Itoa(cmd.ProcessState.ExitCode()), "7")
	want(t, "standard output", out.String(), "out\n")
	want(t, "standard error", said.String(), "err\n")
	got := o.wantAsked(t, `{"verb":"exec","exec":{"args":["cat","-"],"env":["C=d"],"user":"alice","workingDir":"/srv","openStdin":true}}`)
	if !slices.Equal(got, []string{"32 typed\n", "33 "}) {
		t.Errorf("it sent %q, want its input and its end", got)
	}
	a := h.atOnce(1, []string{"exec", "old", "nosuch"})[0]
	if a.code != 127 || !strings.Contains(a.said, `exec "nosuch": not found in PATH`) {
		t.Errorf("exec of what isn't there ends with %d and says %q", a.code, a.said)
	}
	o.was()
}

// TestOldestNookForced: rm -f ends and removes a container of version 1 that
// runs; and one whose monitor was killed.
func TestOldestNookForced(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		t.Run("asked", func(t *testing.T) {
			h := newTestHost(t, m)
			o := newOldMonitor(t, h, m)
			h.run(t, "nook", "rm", "-f", "old")
			o.wantAsked(t, `{"verb":"stop","signal":9,"timeout":0}`)
		})
		t.Run("gone", func(t *testing.T) {
			h := newTestHost(t, m)
			o := newOldMonitor(t, h, m)
			_ = o.lock.Close()
			_ = o.life.Process.Kill()
			_ = o.life.Wait()
			if out := h.run(t, "nook", "ps", "-a", "--format", "{{.Status}}"); !strings.HasPrefix(out, "Exited (137)") {
				t.Errorf("ps says %q", out)
			}
			h.run(t, "nook", "rm", "old")
		})
	})
}
