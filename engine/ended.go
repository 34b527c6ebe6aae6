package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"nook/containers"
	"nook/containers/events"
)

// Wait waits until a container doesn't run and returns its exit code: at once
// when it has ended before.
func (e *Engine) Wait(ctx context.Context, nameOrID string) (code int, err error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return 0, err
	}
	state, err := ct.State()
	if err != nil {
		return 0, err
	}
	return e.waitSince(ctx, ct, state)
}

// waitSince waits for the end of a container that was found in a state, and
// may be removed since.
func (e *Engine) waitSince(ctx context.Context, ct containers.Container, state containers.State) (code int, err error) {
	if state.Status == containers.Created {
		// docker waits for one that was never started too.
		return e.waitStarted(ctx, ct)
	}
	if !state.Status.Live() {
		return state.ExitCode, nil
	}
	result, err := askMonitor(ctx, ct, containers.Request{Verb: containers.VerbWait})
	if errors.Is(err, ErrNotRunning) || errors.Is(err, containers.ErrNotFound) {
		// It ended between the look and the question, or was killed.
		after, err := ct.State()
		if err == nil && after.Status == containers.Created {
			return e.diedWith(ctx, ct, state)
		}
		return after.ExitCode, err
	}
	return result.ExitCode, err
}

// diedWith is the exit code of a container that was removed at its end, which
// only the events still tell. state is its last known one.
func (e *Engine) diedWith(ctx context.Context, ct containers.Container, state containers.State) (code int, err error) {
	for late := time.Now().Add(endTime); state.Monitor.Alive() && time.Now().Before(late); { // it writes them last
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(holdStep):
		}
	}
	found := false
	err = events.Read(ctx, e.root, state.Started, time.Now(), func(ev events.Event) error {
		if ev.Actor.ID != ct.ID || ev.Action != "die" {
			return nil
		}
		n, err := strconv.Atoi(ev.Actor.Attributes["exitCode"])
		if err == nil {
			code, found = n, true
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("container %.12s: %w", ct.ID, containers.ErrNotFound)
	}
	return code, err
}

// waitStarted waits for the end of a container that is not started yet.
func (e *Engine) waitStarted(ctx context.Context, ct containers.Container) (int, error) {
	for {
		state, err := ct.State()
		switch {
		case err != nil:
			return 0, err
		case state.Status != containers.Created:
			return e.Wait(ctx, ct.ID)
		}
		if _, err := ct.Config(); err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
