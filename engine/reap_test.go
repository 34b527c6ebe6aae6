package engine

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childless tells whether this process has no children, zombies neither.
func childless() bool {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return errors.Is(err, unix.ECHILD)
}

// settles waits until nothing is left of what was started: it has ended, and
// is about to be asked for its status.
func settles(t *testing.T, goroutines int) {
	t.Helper()
	for t.Context().Err() == nil {
		if childless() && runtime.NumGoroutine() <= goroutines {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < time.Second {
			break
		}
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	t.Fatalf("no children: %v, %d goroutines, want %d:\n%s", childless(), runtime.NumGoroutine(), goroutines, stacks)
}

// TestALongLifeLeavesNothing in the process that lives it: no zombie, no
// goroutine.
func TestALongLifeLeavesNothing(t *testing.T) {
	e := loaded(t, "single", nil)
	ctx := t.Context()
	one := func() error {
		id, err := e.RunDetached(ctx, RunOptions{Image: "busybox", Remove: true, Command: []string{"sleep", "1000"}})
		if err != nil {
			return err
		}
		if _, err := e.Exec(ctx, id, ExecOptions{Command: []string{"true"}}, Streams{}); err != nil {
			return err
		}
		if err := e.RemoveContainer(ctx, id, RemoveOptions{Force: true}); err != nil {
			return err
		}
		_, err = e.Run(ctx, RunOptions{Image: "busybox", Remove: true, Command: []string{"true"}}, Streams{})
		return err
	}
	if err := one(); err != nil { // what is started once stays
		t.Fatal(err)
	}
	settles(t, runtime.NumGoroutine())
	before := runtime.NumGoroutine()
	for range 30 {
		if err := one(); err != nil {
			t.Fatal(err)
		}
	}
	settles(t, before)
	nothingLeft(t, e)
}

// TestLeavingLeavesNothing: a container whose client goes away is still a child
// of its process.
func TestLeavingLeavesNothing(t *testing.T) {
	e := loaded(t, "single", nil)
	settles(t, runtime.NumGoroutine())
	before := runtime.NumGoroutine()
	for name, run := range map[string]func(context.Context, Streams) error{
		"run": func(ctx context.Context, s Streams) error {
			_, err := e.Run(ctx, RunOptions{Image: "busybox", Name: "left", Interactive: true, Command: []string{"sleep", "1000"}}, s)
			return err
		},
		"start": func(ctx context.Context, s Streams) error {
			_, err := e.Create(ctx, RunOptions{Image: "busybox", Name: "left", Interactive: true, Command: []string{"sleep", "1000"}})
			if err != nil {
				return err
			}
			_, err = e.StartAttached(ctx, "left", s)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			// Input that never ends and is never read fills the window.
			err := run(ctx, Streams{In: endless{}, Out: io.Discard, KeepSignals: true, Started: func(id string) {
				if s, err := e.containers.At(id).State(); err != nil || s.Pid == 0 {
					t.Errorf("started in state %+v, %v", s, err)
				}
				leave()
			}})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want Canceled", err)
			}
			if err := e.RemoveContainer(t.Context(), "left", RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		})
	}
	settles(t, before)
	nothingLeft(t, e)
}

// TestStartedIsTold of those that end at once too.
func TestStartedIsTold(t *testing.T) {
	e := loaded(t, "single", nil)
	for _, remove := range []bool{false, true} {
		var told []string
		streams := Streams{Started: func(id string) { told = append(told, id) }}
		if _, err := e.Run(t.Context(), RunOptions{Image: "busybox", Remove: remove, Command: []string{"true"}}, streams); err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || len(told[0]) != 64 {
			t.Errorf("told %q, want an id once", told)
		}
		told = nil
		if _, err := e.Run(t.Context(), RunOptions{Image: "busybox", Remove: remove, Command: []string{"nothere"}}, streams); err == nil || told != nil {
			t.Errorf("%v, told %q of one that never ran", err, told)
		}
	}
}
