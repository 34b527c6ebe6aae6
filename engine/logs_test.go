package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/logs"
	"nook/internal/hint"
)

func TestLogsOfAnEndedContainer(t *testing.T) {
	e := loaded(t, "single", nil)
	if _, err := run(t, e, RunOptions{Name: "web", Command: []string{"sh", "-c", "echo one; echo two >&2; sleep 0.1; printf three"}}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []LogsOptions{{Tail: -1}, {Tail: -1, Follow: true}} {
		var out, errs bytes.Buffer
		o.Stdout, o.Stderr = &out, &errs
		if err := e.Logs(t.Context(), "web", o); err != nil || out.String() != "one\nthree" || errs.String() != "two\n" {
			t.Errorf("follow %v: got %q and %q, %v", o.Follow, out.String(), errs.String(), err)
		}
	}
	if err := e.Logs(t.Context(), "nosuch", LogsOptions{}); !errors.Is(err, containers.ErrNotFound) {
		t.Errorf("nosuch: %v", err)
	}
	ct, err := e.containers.Find("web")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(ct.Path, "log")
	if err := os.WriteFile(file, []byte("garbage\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Logs(t.Context(), "web", LogsOptions{Tail: -1}); !errors.Is(err, logs.ErrBroken) || hint.Of(err) == "" {
		t.Errorf("broken: %v, hint %q", err, hint.Of(err))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := e.Logs(t.Context(), "web", LogsOptions{Tail: -1}); !errors.Is(err, ErrLogGone) || hint.Of(err) == "" {
		t.Errorf("gone: %v, hint %q", err, hint.Of(err))
	}
}

// chatter is a running container that echoes lines; done gets what Run returned.
type chatter struct {
	in    io.WriteCloser
	done  chan error
	state containers.State
}

func startChatter(t *testing.T, e *Engine, o RunOptions) *chatter {
	t.Helper()
	stdin, in := io.Pipe()
	c := &chatter{in: in, done: make(chan error, 1)}
	o.Image, o.Name, o.Interactive = "busybox", "chatter", true
	o.Command = []string{"sh", "-c", "echo ready; while read line; do echo $line; done; echo end"}
	go func() {
		_, err := e.Run(context.WithoutCancel(t.Context()), o, Streams{In: stdin})
		c.done <- err
	}()
	for {
		if ct, err := e.containers.Find("chatter"); err == nil {
			if c.state, err = ct.State(); err == nil && c.state.Status == containers.Running {
				return c
			}
		}
		select {
		case err := <-c.done:
			t.Fatalf("it ended: %v", err)
		default:
		}
	}
}

// follow begins Logs and returns what it copies and its end.
func followChatter(ctx context.Context, e *Engine, o LogsOptions) (io.Reader, chan error) {
	r, w := io.Pipe()
	ended := make(chan error, 1)
	o.Follow, o.Stdout = true, w
	go func() {
		err := e.Logs(ctx, "chatter", o)
		_ = w.Close()
		ended <- err
	}()
	return r, ended
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got[:n], err, want)
	}
}

func TestLogsFollowsToTheEnd(t *testing.T) {
	for name, remove := range map[string]bool{"kept": false, "removed": true} {
		t.Run(name, func(t *testing.T) {
			e := loaded(t, "single", nil)
			c := startChatter(t, e, RunOptions{Remove: remove})
			r, ended := followChatter(t.Context(), e, LogsOptions{Tail: -1})
			expect(t, r, "ready\n")
			for range 3 {
				if _, err := io.WriteString(c.in, "hello\n"); err != nil {
					t.Fatal(err)
				}
				expect(t, r, "hello\n")
			}
			if err := c.in.Close(); err != nil {
				t.Fatal(err)
			}
			expect(t, r, "end\n")
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("then %q, %v", rest, err)
			}
			if err := errors.Join(<-ended, <-c.done); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLogsFollowNoticesAKilledMonitor, which writes no last state.
func TestLogsFollowNoticesAKilledMonitor(t *testing.T) {
	e := loaded(t, "single", nil)
	c := startChatter(t, e, RunOptions{})
	r, ended := followChatter(t.Context(), e, LogsOptions{Tail: -1})
	expect(t, r, "ready\n")
	if err := unix.Kill(c.state.Monitor.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-c.done; err == nil {
		t.Error("the run didn't notice")
	}
}

func TestLogsFollowEndsWithItsContext(t *testing.T) {
	e := loaded(t, "single", nil)
	c := startChatter(t, e, RunOptions{Remove: true})
	ctx, cancel := context.WithCancel(t.Context())
	r, ended := followChatter(ctx, e, LogsOptions{Tail: 1})
	expect(t, r, "ready\n")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(c.in.Close(), <-c.done); err != nil {
		t.Error(err)
	}
}

func TestAwaitEnd(t *testing.T) {
	refused := func(int, int) (int, error) { return -1, unix.ENOSYS }
	for name, open := range map[string]func(int, int) (int, error){"pidfd": unix.PidfdOpen, "none": refused} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			p := process(t, cmd.Process.Pid)
			look := make(chan struct{}, 1)
			stop := awaitEnd(p, look, open)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for p.Alive() { // the ticks before its end are not what is meant
				<-look
			}
			stop()
			_ = cmd.Wait()
			// One that has ended, or whose number another has, is told at once.
			stop = awaitEnd(p, look, open)
			<-look
			stop()
		})
	}
}

// process names a process of the host.
func process(t *testing.T, pid int) containers.Process {
	t.Helper()
	p, err := containers.Self()
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	const startTime = 22 - 1 // the name in field 2 is one word here
	p.Pid = pid
	if p.StartTime, err = strconv.ParseUint(strings.Fields(string(stat))[startTime], 10, 64); err != nil {
		t.Fatal(err)
	}
	return p
}
