package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/events"
	"nook/internal/fdpass"
	"nook/internal/hint"
)

// TestForetold: run -d is back before its container's monitor listens; whoever
// asks then waits for it, and the beginning is told once, also when the command
// ends without a word.
func TestForetold(t *testing.T) {
	e := loaded(t, "single", nil)
	for name, silent := range map[string]bool{"told": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			var id string
			if silent {
				id = beginSilently(t, e)
			} else {
				id = inBackground(t, e, RunOptions{}, "exec sleep 1000")
			}
			ct, state, err := e.live(id)
			if err != nil {
				t.Fatal(err)
			}
			if state.Pid <= 0 || !state.Monitor.Alive() {
				t.Errorf("state %+v, want its pid, and a monitor that lives", state)
			}
			if err := e.Stop(t.Context(), id, StopOptions{Timeout: new(int)}); err != nil {
				t.Error(err)
			}
			lock, err := ct.WaitLock(t.Context()) // the events are a monitor's last work
			if err != nil {
				t.Fatal(err)
			}
			lock.Release()
			var told []string
			err = events.Read(t.Context(), e.root, begun, time.Now(), func(ev events.Event) error {
				if ev.Actor.ID == id && (ev.Action == "start" || ev.Action == "die") {
					told = append(told, ev.Action)
				}
				return nil
			})
			if want := []string{"start", "die"}; err != nil || !slices.Equal(told, want) {
				t.Errorf("events %v, %v; want %v", told, err, want)
			}
			if state, err = ct.State(); err != nil || state.Status != containers.Exited || state.Starting {
				t.Errorf("state %+v, %v; want an end", state, err)
			}
		})
	}
}

// beginSilently is run -d up to the word that it told the beginning.
func beginSilently(t *testing.T, e *Engine) string {
	t.Helper()
	for { // on a busy machine a monitor may get its first moment too late
		if id, foretold := tryForetelling(t, e); foretold {
			return id
		}
	}
}

func tryForetelling(t *testing.T, e *Engine) (id string, foretold bool) {
	t.Helper()
	y, err := e.early(&containers.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := e.create(t.Context(), RunOptions{Image: "busybox", Command: []string{"sleep", "1000"}, Detach: true, started: true})
	if err != nil {
		y.abort()
		t.Fatal(err)
	}
	h.early, h.ahead = y, true
	t.Cleanup(func() {
		if err := e.RemoveContainer(context.Background(), h.ID, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	defer h.lock.Release()
	s, err := e.launch(t.Context(), h, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	defer reap(s)
	if !s.foretold || !s.executes(t.Context()) { // its monitor was quick
		if _, err := s.runs(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return h.ID, s.foretold
}

// TestForetoldInVain: an entrypoint that could not be executed is told as such,
// also when the monitor was first to read the report.
func TestForetoldInVain(t *testing.T) {
	e := loaded(t, "single", nil)
	for range 20 {
		_, err := e.RunDetached(t.Context(), RunOptions{Image: "busybox", Command: []string{"/etc/passwd"}})
		if hint.Code(err) != hint.ExitCannotRun {
			t.Fatalf("got %v, want that it can't be executed", err)
		}
	}
}

// TestStartWhosePid1IsKilled: the command says so, also where a restart policy
// would have the monitor begin again and again.
func TestStartWhosePid1IsKilled(t *testing.T) {
	for name, policy := range map[string]string{"once": "no", "always": "always"} {
		t.Run(name, func(t *testing.T) {
			e := loaded(t, "single", nil)
			o := RunOptions{Image: "busybox", Command: []string{"true"}, Detach: true, Restart: containers.RestartPolicy{Name: policy}}
			h, err := e.create(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer h.lock.Release()
			y, err := e.early(h.cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			pid := onlyChild(y.pid)
			for ; pid == 0; pid = onlyChild(y.pid) { // until it has forked
				if err := t.Context().Err(); err != nil {
					t.Fatal(err)
				}
			}
			killed(t, pid)
			h.early = y
			if _, err := e.launch(t.Context(), h, nil, 0); !errors.Is(err, fdpass.ErrGone) {
				t.Errorf("got %v, want that it is gone", err)
			}
			if state, err := h.State(); err != nil || state.Status.Live() && state.Monitor.Alive() {
				t.Errorf("it is %+v, %v", state, err)
			}
		})
	}
}

// killed kills a process and waits for its end.
func killed(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// TestTwoStarts: of two starts at once one starts the container, and the other
// says that it did not.
func TestTwoStarts(t *testing.T) {
	e := loaded(t, "single", nil)
	var notes []string
	e.opts.Note = func(text string) { notes = append(notes, text) }
	id, err := e.Create(t.Context(), RunOptions{Image: "busybox", Name: "web", Command: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveContainer(context.Background(), id, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	for len(notes) == 0 { // one may also be over before the other looks
		if err := e.Stop(t.Context(), id, StopOptions{Timeout: new(int)}); err != nil {
			t.Fatal(err)
		}
		h, err := e.hold(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		second := make(chan error, 1)
		go func() { second <- e.Start(t.Context(), "web") }()
		err = e.begin(t.Context(), h)
		h.lock.Release()
		if err = errors.Join(err, <-second); err != nil {
			t.Fatal(err)
		}
	}
	if want := "container web: another command started it meanwhile"; len(notes) != 1 || notes[0] != want {
		t.Errorf("got %q, want %q", notes, want)
	}
}
