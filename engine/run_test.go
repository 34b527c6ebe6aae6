package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
	"nook/internal/testenv/testimage"
)

// eachMode runs a test with mapped ids and with a single one.
func eachMode(t *testing.T, test func(t *testing.T, ids string)) {
	for _, ids := range []string{"mapped", "single"} {
		t.Run(ids, func(t *testing.T) { test(t, ids) })
	}
}

func TestEntrypointIsAloneAndItself(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		leaked, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // as of a shell's exec 7<
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(leaked)
		e := loaded(t, ids, nil)
		for name, tc := range map[string]struct {
			script, want string
			user         string
		}{
			"descriptors": {script: `ls /proc/1/fd; true`, want: "0\n1\n2"},
			"of a user":   {script: `ls /proc/1/fd; true`, want: "0\n1\n2", user: "alice"},
			"umask":       {script: "umask", want: "0022"},
			"session":     {script: `set -- $(sed 's/.*) //' /proc/1/stat); echo $3 $4 $$`, want: "1 1 1"},
			"processes":   {script: "echo /proc/[0-9]*", want: "/proc/1"},
			"streams":     {script: "test -p /dev/stdout && test ! -t 0 && echo x >/dev/stderr && readlink /proc/1/fd/0", want: "/dev/null"},
			"re-opened":   {script: "echo x >/dev/stdout", want: "x", user: "alice"},
			"root":        {script: "stat -c '%u:%g %a' /; stat -c '%u %a' /tmp", want: "0:0 755\n0 1777"},
			"ids":         {script: "id -u; id -g", want: "1000\n1000", user: "alice"},
		} {
			t.Run(name, func(t *testing.T) {
				if got := sh(t, e, tc.script, func(o *RunOptions) { o.User = tc.user }); got != tc.want {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		}
		nothingLeft(t, e)
	})
}

// TestNoPathLeadsToOurDescriptors: CVE-2024-21626 and what is like it. The
// image says where it wants to go; the numbers are guessed.
func TestNoPathLeadsToOurDescriptors(t *testing.T) {
	e := loaded(t, "single", nil)
	if err := os.WriteFile(filepath.Join(e.root, "tool"), []byte("#!/bin/sh\necho reached\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for fd := 3; fd < 128; fd++ {
		link := fmt.Sprintf("/proc/self/fd/%d", fd)
		got, err := run(t, e, RunOptions{Remove: true, WorkDir: link, Command: []string{"ls", "-a"}})
		if err == nil {
			t.Errorf("the working directory %s: %+v, want it refused", link, got)
		}
	}
	up := ""
	for range 6 {
		up += "../"
		for _, fd := range []int{3, 4, 5, 6, 7, 8, 9, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80} {
			command := fmt.Sprintf("/proc/self/fd/%d/%stool", fd, up)
			if got, err := run(t, e, RunOptions{Remove: true, Command: []string{command}}); err == nil {
				t.Errorf("the entrypoint %s: %+v, want it refused", command, got)
			}
		}
	}
	nothingLeft(t, e)
}

func TestExitCodes(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		e := loaded(t, ids, func(img *testimage.Image) {
			img.Layers[0].Entries = append(img.Layers[0].Entries,
				testimage.File("bin/plain", 0o644, "x"), testimage.File("bin/foreign", 0o755, "notelf"),
				testimage.File("bin/orphan", 0o755, "#!/no/such/interpreter\n"), testimage.Dir("bin/dir", 0o755))
		})
		for _, tc := range []struct {
			command string
			code    int
		}{
			{"true", 0}, {"false", 1}, {"sh -c exit\t3", 3}, {"sh -c exit\t255", 255}, {"sh -c exit\t125", 125},
			{"sh -c sh\t-c\t'kill\t-KILL\t$$';exit\t$?", 137},
		} {
			args := strings.Fields(strings.ReplaceAll(tc.command, "\t", "\x00"))
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "\x00", " ")
			}
			if got, err := run(t, e, RunOptions{Remove: true, Command: args}); err != nil || got.code != tc.code {
				t.Errorf("%v: %+v, %v; want %d", args, got, err, tc.code)
			}
		}
		for _, tc := range []struct {
			command, user string
			code          int
			cause         error
		}{
			{"nothere", "", 127, unix.ENOENT}, {"/no/such", "", 127, unix.ENOENT}, {"./x", "", 127, unix.ENOENT},
			{"orphan", "", 127, unix.ENOENT},
			{"plain", "", 126, unix.EACCES}, {"/bin/dir", "", 126, unix.EACCES}, {"foreign", "", 126, unix.ENOEXEC},
			{"true", "nobody-here", 125, nil}, {"/bin/busybox/x", "", 127, unix.ENOTDIR},
			{"", "", 127, unix.ENOENT},
		} {
			got, err := run(t, e, RunOptions{Remove: true, Command: []string{tc.command}, User: tc.user})
			if err == nil || hint.Code(err) != tc.code {
				t.Errorf("%q as %q: %+v, %v with code %d; want %d", tc.command, tc.user, got, err, hint.Code(err), tc.code)
			}
			if tc.cause != nil && !errors.Is(err, tc.cause) && !errors.Is(err, unix.ENOENT) {
				t.Errorf("%q: %v, want %v", tc.command, err, tc.cause)
			}
			if hint.Of(err) == "" {
				t.Errorf("%q: %v has no hint", tc.command, err)
			}
		}
		nothingLeft(t, e)
	})
}

// TestContainersSeeNothingOfEachOther: nor does the image.
func TestContainersSeeNothingOfEachOther(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		e := loaded(t, ids, nil)
		if got := sh(t, e, "echo x >/made; rm /etc/passwd; ls / /etc"); !strings.Contains(got, "made") || strings.Contains(got, "passwd") {
			t.Errorf("in the first: %s", got)
		}
		if got := sh(t, e, "ls / /etc"); strings.Contains(got, "made") || !strings.Contains(got, "passwd") {
			t.Errorf("in the second: %s", got)
		}
	})
}

// TestRecordOutlivesTheRun without Remove.
func TestRecordOutlivesTheRun(t *testing.T) {
	e := loaded(t, "single", nil)
	got, err := run(t, e, RunOptions{Name: "web", Command: []string{"sh", "-c", "echo out; echo err >&2; echo x >/made; exit 7"}})
	if err != nil || got.code != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	list, err := e.containers.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v; want one container", list, err)
	}
	state, err := list[0].State()
	if err != nil || state.Status != containers.Exited || state.ExitCode != 7 || state.Pid != 0 || state.Finished.IsZero() {
		t.Errorf("state %+v, %v", state, err)
	}
	log, err := os.ReadFile(filepath.Join(list[0].Path, "log"))
	if err != nil || !strings.Contains(string(log), " stdout F out\n") || !strings.Contains(string(log), " stderr F err\n") {
		t.Errorf("log %q, %v", log, err)
	}
	if _, err := os.Stat(filepath.Join(list[0].Path, "upper", "made")); err != nil {
		t.Error(err)
	}
	if _, err := run(t, e, RunOptions{Name: "web", Command: []string{"true"}}); !errors.Is(err, containers.ErrNameTaken) {
		t.Errorf("the name again: %v, want ErrNameTaken", err)
	}
	if list, _ := e.containers.List(); len(list) != 1 {
		t.Errorf("%d containers, want 1", len(list))
	}
}

// started waits for the first output of a container that runs in the
// background.
type background struct {
	t    *testing.T
	out  *bytes.Buffer
	mu   sync.Mutex
	more sync.Cond
	done chan struct{}
	code int
	err  error
}

func (b *background) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.out.Write(p)
	b.more.Broadcast()
	return n, err
}

func begin(ctx context.Context, t *testing.T, e *Engine, o RunOptions, in io.Reader) *background {
	t.Helper()
	b := &background{t: t, out: &bytes.Buffer{}, done: make(chan struct{})}
	b.more.L = &b.mu
	o.Image = "busybox"
	go func() {
		defer close(b.done)
		b.code, b.err = e.Run(ctx, o, Streams{In: in, Out: b, Err: b})
		b.mu.Lock()
		defer b.mu.Unlock()
		b.more.Broadcast()
	}()
	return b
}

// await returns what was printed once it has text.
func (b *background) await(text string) string {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for !strings.Contains(b.out.String(), text) {
		select {
		case <-b.done:
			b.t.Fatalf("ended with %d, %v: %s", b.code, b.err, b.out)
		default:
		}
		b.more.Wait()
	}
	return b.out.String()
}

func (e *Engine) only(t *testing.T) containers.Container {
	t.Helper()
	list, err := e.containers.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v; want one container", list, err)
	}
	return list[0]
}

// running waits until the monitor has written the state.
func running(t *testing.T, ct containers.Container) containers.State {
	t.Helper()
	for {
		s, err := ct.State()
		if err != nil {
			t.Fatal(err)
		}
		if s.Status == containers.Running {
			return s
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
}

// ends waits for the end of a process by a descriptor of it.
func ends(t *testing.T, pidfd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 120_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("the process goes on: %v", err)
		}
		return
	}
}

// TestContainerEndsWithItsMonitor: also after its entrypoint changed user,
// which clears PR_SET_PDEATHSIG.
func TestContainerEndsWithItsMonitor(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		for _, user := range []string{"", "alice"} {
			e := loaded(t, ids, nil)
			b := begin(t.Context(), t, e, RunOptions{User: user, Command: []string{"sh", "-c", "echo up; exec sleep 1000"}}, nil)
			b.await("up")
			ct := e.only(t)
			s := running(t, ct)
			pidfd, err := unix.PidfdOpen(s.Pid, 0)
			if err != nil {
				t.Fatalf("the pid of the state: %v", err)
			}
			if err := unix.Kill(s.Monitor.Pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ends(t, pidfd)
			unix.Close(pidfd)
			<-b.done
			if b.err == nil {
				t.Errorf("code %d, want an error that tells of the monitor", b.code)
			}
			if s, err := ct.State(); err != nil || s.Status != containers.Exited || s.ExitCode != 137 {
				t.Errorf("state %+v, %v; want exited, 137", s, err)
			}
		}
	})
}

// TestContainerOutlivesItsClient: it belongs to its monitor.
func TestContainerOutlivesItsClient(t *testing.T) {
	e := loaded(t, "single", nil)
	fifo := filepath.Join(e.root, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := begin(ctx, t, e, RunOptions{Volumes: []string{fifo + ":/fifo"},
		Command: []string{"sh", "-c", "echo up; cat /fifo; echo later; exit 4"}}, nil)
	b.await("up")
	ct := e.only(t)
	pidfd, err := unix.PidfdOpen(running(t, ct).Monitor.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	cancel()
	<-b.done
	if !errors.Is(b.err, context.Canceled) {
		t.Errorf("got %v, want Canceled", b.err)
	}
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil { // lets it go on
		t.Fatal(err)
	}
	ends(t, pidfd)
	s, err := ct.State()
	if err != nil || s.Status != containers.Exited || s.ExitCode != 4 {
		t.Errorf("state %+v, %v; want exited, 4", s, err)
	}
	if log, err := os.ReadFile(filepath.Join(ct.Path, "log")); err != nil || !strings.Contains(string(log), " F later\n") {
		t.Errorf("log %q, %v: want what came later", log, err)
	}
}

// endless is standard input that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestSignalsPassAContainerThatDoesNotRead: its input is full.
func TestSignalsPassAContainerThatDoesNotRead(t *testing.T) {
	e := loaded(t, "single", nil)
	b := begin(t.Context(), t, e, RunOptions{Remove: true, Interactive: true,
		Command: []string{"sh", "-c", "trap 'echo got it; exit 9' TERM; echo up; while :; do sleep 0.01; done"}}, endless{})
	b.await("up")
	// This process is the foreground command.
	if err := unix.Kill(unix.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-b.done
	if b.err != nil || b.code != 9 || !strings.Contains(b.out.String(), "got it") {
		t.Errorf("code %d, %v: %s; want 9", b.code, b.err, b.out)
	}
	nothingLeft(t, e)
}

// TestStreamsCarryAll: a megabyte there and back, unchanged.
func TestStreamsCarryAll(t *testing.T) {
	e := loaded(t, "single", nil)
	want := bytes.Repeat([]byte("0123456789abcdef\n"), 100_000)
	var got bytes.Buffer
	code, err := e.Run(t.Context(), RunOptions{Image: "busybox", Remove: true, Interactive: true, Command: []string{"cat"}},
		Streams{In: bytes.NewReader(want), Out: &got})
	if err != nil || code != 0 || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("code %d, %v, %d bytes; want %d", code, err, got.Len(), len(want))
	}
	nothingLeft(t, e)
}

// TestManyAtOnce: as a test harness runs them.
func TestManyAtOnce(t *testing.T) {
	e := loaded(t, "single", nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 3 {
				text := strconv.Itoa(10*i + j)
				got, err := run(t, e, RunOptions{Remove: true, Command: []string{"sh", "-c", "echo " + text + " | tee /x; exit " + text}})
				if err != nil || got.out != text+"\n" || strconv.Itoa(got.code) != text {
					t.Errorf("%s: %+v, %v", text, got, err)
				}
			}
		})
	}
	wg.Wait()
	nothingLeft(t, e)
}
