package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// eachLoaded runs f in each way of ids, with busybox loaded.
func eachLoaded(t *testing.T, f func(t *testing.T, m mode, h *host)) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		f(t, m, h)
	})
}

// monitorOf reads who keeps a container's state true.
func (h *host) monitorOf(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.root, "containers/names", name, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		Monitor struct{ Pid int }
	}
	if err := json.Unmarshal(text, &state); err != nil || state.Monitor.Pid <= 1 {
		t.Fatalf("monitor %d, %v, in %s", state.Monitor.Pid, err, text)
	}
	return state.Monitor.Pid
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestKilledMonitor: the container ends with its monitor, whoever its processes
// became, and is told as what it is; then it can be started and removed.
func TestKilledMonitor(t *testing.T) {
	eachLoaded(t, func(t *testing.T, m mode, h *host) {
		for i, tc := range []struct {
			name    string
			flags   []string
			command string // % is the process to look for
			paused  bool
		}{
			{"root", nil, "% & wait", false},
			{"USER", []string{"-u", "alice"}, "% & wait", false},
			{"setuid", nil, "exec su alice -s /bin/sh -c '% & wait'", false},
			{"setsid", nil, "setsid % & wait", false},
			{"init", []string{"--init"}, "% & wait", false},
			{"restart", []string{"--restart", "always"}, "% & wait", false},
			{"paused", nil, "% & wait", true},
		} {
			t.Run(tc.name, func(t *testing.T) {
				if tc.name == "setuid" && m.name == "single" {
					return // no other id exists there
				}
				mark := fmt.Sprint(2_000_000 + 100*os.Getpid() + i)
				script := "echo run >>/tmp/runs; cat /tmp/runs; " + strings.ReplaceAll(tc.command, "%", "sleep "+mark)
				h.run(t, "nook", append(append([]string{"run", "-d", "--name", "web"}, tc.flags...), "busybox", "sh", "-c", script)...)
				client := h.cmd("nook", "exec", "web", "sleep", mark)
				if err := client.Start(); err != nil {
					t.Fatal(err)
				}
				inside := h.inside(t, "sleep\x00"+mark, 2, client.Process.Pid) // its own and exec's
				if tc.paused {
					h.run(t, "nook", "pause", "web")
				}
				monitor := h.monitorOf(t, "web")
				kill(t, monitor)
				for _, pid := range append(inside, monitor) {
					if !ended(pid, patience) {
						t.Errorf("process %d outlives its monitor", pid)
					}
				}
				if err := client.Wait(); err == nil {
					t.Error("nook exec answers success for a process that was killed")
				}
				if out := h.run(t, "nook", "ps", "-a", "--format", "{{.State}} {{.Status}}"); !strings.HasPrefix(out, "exited Exited (137)") {
					t.Errorf("ps says %q", out)
				}
				want(t, "wait", h.run(t, "nook", "wait", "web"), "137\n")
				h.run(t, "nook", "start", "web")
				h.until(t, `\Arun\nrun\nrun\n\z`, "logs", "web")
				h.run(t, "nook", "exec", "web", "true")
				h.run(t, "nook", "rm", "-f", "web")
			})
		}
	})
}

// TestKilledCommand: a container that is to be removed is, also when nobody is
// there to be told; one that isn't goes on.
func TestKilledCommand(t *testing.T) {
	const script = "echo ready; until test -e /go; do sleep 0.05; done; echo x >/written"
	eachLoaded(t, func(t *testing.T, _ mode, h *host) {
		for _, verb := range []string{"run", "start", "attach", "exec"} {
			t.Run(verb, func(t *testing.T) {
				create := []string{"create", "--rm", "--name", "web", "busybox", "sh", "-c", script}
				args := []string{"start", "-a", "web"}
				switch verb {
				case "run":
					args = append([]string{"run"}, create[1:]...)
				case "start":
					h.run(t, "nook", create...)
				default:
					h.run(t, "nook", append([]string{"run", "-d"}, create[1:]...)...)
					args = []string{"attach", "web"}
					if verb == "exec" {
						args = []string{"exec", "web", "sh", "-c", "echo ready; sleep 1000"}
					}
				}
				cmd := h.cmd("nook", args...)
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if verb != "attach" { // which may come after the word
					if _, err := readWord(out); err != nil {
						t.Fatal(err)
					}
				}
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				h.run(t, "nook", "exec", "-d", "web", "touch", "/go") // it may be killed with what it ends
				err = until(func() error {
					if left := entries(filepath.Join(h.root, "containers")); len(left) > 0 {
						return fmt.Errorf("a container with --rm left %q", left)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// readWord reads the line that a container begins with.
func readWord(out interface{ Read([]byte) (int, error) }) (string, error) {
	var line []byte
	for !bytes.HasSuffix(line, []byte("\n")) {
		var b [1]byte
		if _, err := out.Read(b[:]); err != nil {
			return "", fmt.Errorf("wait for a word of the container: %w", err)
		}
		line = append(line, b[0])
	}
	return string(line), nil
}

// answers are what commands that ran at the same time said.
type answers []answered

// atOnce runs commands at the same time, most of them at once.
func (h *host) atOnce(most int, commands ...[]string) answers {
	out := make(answers, len(commands))
	room := make(chan struct{}, most)
	var all sync.WaitGroup
	for i, args := range commands {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			cmd := h.cmd("nook", args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			out[i] = answered{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
			if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
				out[i] = answered{said: err.Error(), code: -1}
			}
		})
	}
	all.Wait()
	return out
}

// succeeded are those that did; the others have to have said why.
func (a answers) succeeded(t *testing.T, why string) (which []int) {
	t.Helper()
	for i, one := range a {
		switch {
		case one.code == 0:
			which = append(which, i)
		case !strings.Contains(one.said, why) || strings.Count(one.said, "\n") > 2:
			t.Errorf("command %d ends with %d and says %q, want %q", i, one.code, one.said, why)
		}
	}
	return which
}

// TestAtOnce: of two commands on one container one wins and the other says so.
func TestAtOnce(t *testing.T) {
	const rounds = 5
	sleep := []string{"busybox", "sh", "-c", "echo run >>/runs; exec sleep 1000"}
	create := append([]string{"create", "--name", "web"}, sleep...)
	all := func(n int, args ...string) [][]string {
		var out [][]string
		for range n {
			out = append(out, args)
		}
		return out
	}
	eachLoaded(t, func(t *testing.T, _ mode, h *host) {
		t.Run("starts", func(t *testing.T) {
			for range rounds {
				h.run(t, "nook", create...)
				// Who comes second finds it running, which is what he wanted.
				if ok := h.atOnce(6, all(6, "start", "web")...).succeeded(t, ""); len(ok) != 6 {
					t.Errorf("%d of 6 starts succeed", len(ok))
				}
				want(t, "runs", h.until(t, "run", "exec", "web", "cat", "/runs"), "run\n")
				h.run(t, "nook", "rm", "-f", "web")
			}
		})
		t.Run("start and rm", func(t *testing.T) {
			for range rounds {
				h.run(t, "nook", create...)
				got := h.atOnce(2, []string{"start", "web"}, []string{"rm", "web"})
				started, removed := got[0].code == 0, got[1].code == 0
				if started == removed {
					t.Errorf("start ends with %d and says %q, rm with %d and %q: want one to win",
						got[0].code, got[0].said, got[1].code, got[1].said)
				}
				got[:1].succeeded(t, "no such container")
				got[1:].succeeded(t, "container is running")
				if started {
					h.run(t, "nook", "exec", "web", "true")
					h.run(t, "nook", "rm", "-f", "web")
				}
				want(t, "ps", h.run(t, "nook", "ps", "-aq"), "")
			}
		})
		t.Run("rm -f and exec", func(t *testing.T) {
			for range rounds {
				h.run(t, "nook", append([]string{"run", "-d", "--name", "web"}, sleep...)...)
				execs := all(4, "exec", "web", "sleep", "1000")
				got := h.atOnce(6, append(execs, []string{"rm", "-f", "web"}, []string{"rm", "-f", "web"})...)
				for i, one := range got {
					switch {
					case i >= len(execs) && one.code != 0:
						t.Errorf("rm -f ends with %d and says %q", one.code, one.said)
					case i < len(execs) && one.code != 137 && (one.code != 125 || !strings.Contains(one.said, "container")):
						t.Errorf("exec ends with %d and says %q", one.code, one.said)
					}
				}
				want(t, "ps", h.run(t, "nook", "ps", "-aq"), "")
			}
		})
		t.Run("one name", func(t *testing.T) {
			for range rounds {
				got := h.atOnce(6, all(6, append([]string{"run", "-d", "--name", "web"}, sleep...)...)...)
				if ok := got.succeeded(t, `name "web": container name is in use`); len(ok) != 1 {
					t.Errorf("%d containers got the name", len(ok))
				} else if id := h.run(t, "nook", "inspect", "-f", "{{.Id}}", "web"); id != got[ok[0]].out {
					t.Errorf("the name is of %s, want who said so, %s", id, got[ok[0]].out)
				}
				if ids := strings.Fields(h.run(t, "nook", "ps", "-aq")); len(ids) != 1 {
					t.Errorf("%d containers are there, want 1", len(ids))
				}
				h.run(t, "nook", "rm", "-f", "web")
			}
		})
		t.Run("stop, kill, restart and rm -f", func(t *testing.T) {
			for range rounds {
				h.run(t, "nook", append([]string{"run", "-d", "--name", "web"}, sleep...)...)
				got := h.atOnce(6, []string{"stop", "-t", "0", "web"}, []string{"kill", "web"},
					[]string{"restart", "-t", "0", "web"}, []string{"stop", "-t", "0", "web"}, []string{"rm", "-f", "web"})
				for i, one := range got {
					if one.code != 0 && !strings.Contains(one.said, "container") {
						t.Errorf("command %d ends with %d and says %q", i, one.code, one.said)
					}
				}
				// restart may have come last.
				h.run(t, "nook", "rm", "-f", "web")
				want(t, "ps", h.run(t, "nook", "ps", "-aq"), "")
			}
		})
	})
}

// TestManyAtOnce: 100 containers, each with its own words.
func TestManyAtOnce(t *testing.T) {
	eachLoaded(t, func(t *testing.T, _ mode, h *host) {
		for _, most := range []int{8, 100} {
			t.Run(strconv.Itoa(most)+" at once", func(t *testing.T) {
				if most > 8 {
					testenv.Need(t, "long", testenv.Long)
				}
				var commands [][]string
				for i := range 100 {
					commands = append(commands, []string{"run", "--rm", "busybox", "sh", "-c", fmt.Sprintf("echo %d >/mine; cat /mine", i)})
				}
				got := h.atOnce(most, commands...)
				got.succeeded(t, "\x00") // which nobody says
				for i, one := range got {
					want(t, "output", one.out, fmt.Sprintln(i))
				}
			})
		}
	})
}
