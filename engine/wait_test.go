package engine

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"nook/containers"
)

// inBackground starts a container that is removed with the test.
func inBackground(t *testing.T, e *Engine, o RunOptions, script string) string {
	t.Helper()
	o.Image, o.Command = "busybox", []string{"sh", "-c", script}
	id, err := e.RunDetached(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := e.RemoveContainer(context.Background(), id, RemoveOptions{Force: true})
		if err != nil && !errors.Is(err, containers.ErrNotFound) {
			t.Error(err)
		}
	})
	return id
}

// failure is the WaitError that err has to be.
func failure(t *testing.T, err, cause error) *WaitError {
	t.Helper()
	var w *WaitError
	if !errors.As(err, &w) || !errors.Is(err, cause) {
		t.Fatalf("got %v, want a WaitError for %v", err, cause)
	}
	return w
}

func TestWaitForLog(t *testing.T) {
	e := loaded(t, "single", nil)
	for name, tc := range map[string]struct {
		script, pattern, want string
		tty                   bool
	}{
		"stdout":        {"echo one; echo ready 7; sleep 1000", `ready \d`, "ready 7", false},
		"stderr":        {"echo one; echo ready 8 >&2; sleep 1000", `^ready \d$`, "ready 8", false},
		"in pieces":     {"printf re; printf ady; echo ' 9'; sleep 1000", `^ready 9$`, "ready 9", false},
		"of a terminal": {"echo ready; sleep 1000", `^ready$`, "ready", true},
		"it has ended":  {"echo ready", `^ready$`, "ready", false},
		"without end":   {"echo one; printf ready", `^ready$`, "ready", false},
	} {
		t.Run(name, func(t *testing.T) {
			id := inBackground(t, e, RunOptions{TTY: tc.tty}, tc.script)
			got, err := e.WaitForLog(t.Context(), id, regexp.MustCompile(tc.pattern).Match)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// TestWaitForLogOfTheLastStart: what an earlier run wrote is not waited for.
func TestWaitForLogOfTheLastStart(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{}, "test -e /again || { >/again; echo first; exit; }; echo second")
	for _, want := range []string{"first", "second"} {
		if got, err := e.WaitForLog(t.Context(), id, func([]byte) bool { return true }); err != nil || got != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
		if _, err := e.Wait(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// lastWords waits to be let go by a line of input.
const lastWords = "echo starting; read go; echo no configuration >&2; exit 3"

func letGo(t *testing.T, e *Engine, id string) {
	t.Helper()
	if _, err := e.Attach(t.Context(), id, Streams{In: strings.NewReader("go\n"), KeepSignals: true}); err != nil {
		t.Fatal(err)
	}
}

func checkLastWords(t *testing.T, err error, code int) {
	t.Helper()
	w := failure(t, err, ErrNotRunning)
	if w.ExitCode != code {
		t.Errorf("exit code %d, want %d", w.ExitCode, code)
	}
	if got := w.Error(); !strings.HasSuffix(got, "\n\tstarting\n\tno configuration") {
		t.Errorf("got %q, want the last words", got)
	}
}

func TestWaitsEndWithTheContainer(t *testing.T) {
	e := loaded(t, "single", nil)
	for name, wait := range map[string]func(id string) error{
		"log": func(id string) error {
			_, err := e.WaitForLog(t.Context(), id, regexp.MustCompile("never").Match)
			return err
		},
		"port":   func(id string) error { return e.WaitForPort(t.Context(), id, "tcp", "localhost:80") },
		"health": func(id string) error { return e.WaitForHealthy(t.Context(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			check := &containers.HealthCheck{Test: []string{"CMD", "false"}}
			id := inBackground(t, e, RunOptions{Health: check, Interactive: true}, lastWords)
			told := make(chan error, 1)
			go func() { told <- wait(id) }()
			letGo(t, e, id)
			checkLastWords(t, <-told, 3)
			checkLastWords(t, wait(id), 3) // which has ended long ago
		})
	}
}

// TestWaitEndsWithARemovedContainer: nothing is left to read from then.
func TestWaitEndsWithARemovedContainer(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{Remove: true, Interactive: true}, lastWords)
	begun := make(chan struct{})
	w, err := e.waitable(t.Context(), id, "nothing")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		letGo(t, e, id)
	}()
	err = w.begin(-1, func(line []byte) bool {
		if string(line) == "starting" {
			close(begun)
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	<-w.ended
	err = w.failed("", nil)
	var got *WaitError
	if errors.As(err, &got) && got.ExitCode == -1 {
		got.ExitCode = 3 // its end was faster than the question
	}
	checkLastWords(t, err, 3)
	nothingLeft(t, e)
}

func TestWaitEndsWithItsContext(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{}, "echo one; echo two; sleep 1000")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	_, err := e.WaitForLog(ctx, id, func(line []byte) bool {
		if string(line) == "two" {
			cancel(cause)
		}
		return false
	})
	if w := failure(t, err, cause); !slices.Equal(w.Log, []string{"one", "two"}) || w.ExitCode != -1 {
		t.Errorf("got %+v", w)
	}
	w := failure(t, e.WaitForPort(ctx, id, "tcp", "localhost:1"), cause)
	if !strings.Contains(w.Error(), "wait for port tcp localhost:1 of container "+id+": enough") {
		t.Errorf("got %q", w)
	}
}

func TestWaitForPort(t *testing.T) {
	eachMode(t, func(t *testing.T, ids string) {
		e := loaded(t, ids, nil)
		id := inBackground(t, e, RunOptions{}, "sleep 0.05; exec httpd -f -p 127.0.0.1:80")
		if err := e.WaitForPort(t.Context(), id, "tcp", "localhost:80"); err != nil {
			t.Error(err)
		}
		listener, err := net.Listen("unix", filepath.Join(e.root, "sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		id = inBackground(t, e, RunOptions{Volumes: []string{e.root + ":/run"}}, "sleep 1000")
		if err := e.WaitForPort(t.Context(), id, "unix", "/run/sock"); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitForPortRefusesAtOnce(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{Hostname: "here"}, "sleep 1000")
	for _, tc := range []struct{ network, address, want string }{
		{"udp", "localhost:53", "udp has no connections"},
		{"carrier", "pigeon", "unknown network carrier"},
		{"tcp", "localhost", "missing port"},
		{"tcp", "there:80", `"there" is no address`},
	} {
		if err := e.WaitForPort(t.Context(), id, tc.network, tc.address); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %s: got %v, want %q", tc.network, tc.address, err, tc.want)
		}
	}
	made, err := e.Create(t.Context(), RunOptions{Image: "busybox", Hostname: "here"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.WaitForPort(t.Context(), made, "tcp", "here:80"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("of one that was never started: %v, want ErrNotRunning", err)
	}
}

func TestWaitForHealthy(t *testing.T) {
	e := loaded(t, "single", nil)
	check := func(line string) RunOptions {
		return RunOptions{Health: &containers.HealthCheck{Test: []string{"CMD-SHELL", line}, Interval: time.Millisecond, Retries: 2}}
	}
	id := inBackground(t, e, check("true"), "sleep 1000")
	if err := e.WaitForHealthy(t.Context(), id); err != nil {
		t.Error(err)
	}
	id = inBackground(t, e, check("echo no answer; exit 4"), "echo up; sleep 1000")
	w := failure(t, e.WaitForHealthy(t.Context(), id), ErrUnhealthy)
	if !strings.Contains(w.Last, "unhealthy: exit code 4: no answer") || !slices.Equal(w.Log, []string{"up"}) {
		t.Errorf("got %+v", w)
	}
	id = inBackground(t, e, RunOptions{}, "sleep 1000")
	if err := e.WaitForHealthy(t.Context(), id); !errors.Is(err, ErrNoHealthCheck) {
		t.Errorf("got %v, want ErrNoHealthCheck", err)
	}
}

func TestLinesOfAWriter(t *testing.T) {
	for _, size := range []int{1, 2, 3, 100} {
		var got []string
		w := lineWriter{line: func(line []byte) bool {
			got = append(got, string(line))
			return string(line) == "end"
		}}
		in := []byte("one\n\ntwo\r\nend\nmore")
		var err error
		for len(in) > 0 && err == nil {
			n := min(size, len(in))
			_, err = w.Write(in[:n])
			in = in[n:]
		}
		if !errors.Is(err, errMatched) || !slices.Equal(got, []string{"one", "", "two", "end"}) {
			t.Errorf("in pieces of %d: %q, %v", size, got, err)
		}
	}
	longest := 0
	w := lineWriter{line: func(line []byte) bool { longest = max(longest, len(line)); return false }}
	for range 40 {
		_, _ = w.Write(make([]byte, longestLine/20))
	}
	_, _ = w.Write([]byte("\n"))
	if longest != longestLine {
		t.Errorf("a line of %d bytes, want %d", longest, longestLine)
	}
}

// TestCodeOfARemovedContainer: who asked a moment too late gets it too.
func TestCodeOfARemovedContainer(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{Remove: true, Interactive: true}, lastWords)
	ct, state, err := e.live(id)
	if err != nil {
		t.Fatal(err)
	}
	letGo(t, e, id)
	if code, err := e.diedWith(t.Context(), ct, state); code != 3 || err != nil {
		t.Errorf("got %d, %v; want 3", code, err)
	}
	ct.ID = "another"
	if _, err := e.diedWith(t.Context(), ct, state); !errors.Is(err, containers.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}
