package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"nook/containers"
	"nook/containers/events"
	"nook/internal/atomicfile"
	"nook/internal/frame"
	"nook/internal/hint"
	"nook/internal/raw"
)

// The verbs over a container's life. Each reads the container's record and
// state, and asks its monitor or, where there is none, holds its lock.

// Create makes a container and returns its id. It is not started.
func (e *Engine) Create(ctx context.Context, o RunOptions) (id string, err error) {
	h, err := e.create(ctx, o)
	if err != nil {
		return "", err
	}
	defer h.lock.Release()
	if o.Remove { // or who finds it takes it for a leftover: Container.Abandoned
		if err := h.WriteState(containers.State{Status: containers.Created}, atomicfile.Durable); err != nil {
			e.remove(h)
			return "", err
		}
	}
	return h.ID, nil
}

// RunDetached creates a container, starts it and returns its id once its
// entrypoint runs. One that could not be started is removed again.
func (e *Engine) RunDetached(ctx context.Context, o RunOptions) (id string, err error) {
	o.Detach, o.started = true, true
	y, err := e.early(&containers.Config{Network: o.Network, Init: o.Init, OpenStdin: o.Interactive, TTY: o.TTY}, o.Leash)
	if err != nil {
		return "", err
	}
	h, err := e.create(ctx, o)
	if err != nil {
		y.abort()
		return "", err
	}
	h.early, h.ahead = y, true
	defer h.lock.Release()
	if err := e.begin(ctx, h); err != nil {
		if ctx.Err() == nil {
			e.remove(h)
			if o.CIDFile != "" {
				_ = os.Remove(o.CIDFile)
			}
		}
		return "", err
	}
	return h.ID, nil
}

// begin starts a container that is held and waits until its entrypoint runs.
func (e *Engine) begin(ctx context.Context, h held) error {
	s, err := e.launch(ctx, h, nil, 0)
	if err != nil {
		return err
	}
	defer s.close()
	ended := false
	if !s.foretold || !s.executes(ctx) {
		ended, err = s.runs(ctx)
	}
	if s.foretold && err == nil {
		e.event("start", h.cfg)
		_ = frame.Write(s.control, frame.Begun, nil) // one that is gone needs no word
	}
	if err != nil && ctx.Err() == nil || ended && !h.cfg.Restart.Wanted() {
		s.wait() // then its last state is there to be read
	} else {
		reap(s)
	}
	return err
}

// runs waits until the entrypoint runs, or ran.
func (s *started) runs(ctx context.Context) (ended bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = s.control.Close() })
	defer stop()
	r := frame.NewReader(s.control)
	for {
		kind, payload, err := r.Next()
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			return false, hint.Wrap(errLost, "somebody killed it, or the kernel did for want of memory: see dmesg")
		}
		switch kind {
		case frame.Hello:
			s.leaveStreams()
		case frame.Started, frame.Exit:
			return kind == frame.Exit, nil
		case frame.Refused:
			var rep raw.Report
			if err := json.Unmarshal(payload, &rep); err != nil {
				return false, fmt.Errorf("read the monitor's answer: %w", err)
			}
			return false, s.explain(rep)
		}
	}
}

// Start starts a container that doesn't run and waits until its entrypoint
// runs. One that runs is left alone, as docker does.
func (e *Engine) Start(ctx context.Context, nameOrID string) error {
	h, err := e.hold(ctx, nameOrID)
	if errors.Is(err, ErrRunning) {
		if errors.Is(err, errMeanwhile) {
			e.note("container %s: another command started it meanwhile", nameOrID)
		}
		return e.unlessPaused(nameOrID)
	}
	if err != nil {
		return err
	}
	defer h.lock.Release()
	return e.begin(ctx, h)
}

// unlessPaused refuses to take a paused container for one that was started.
func (e *Engine) unlessPaused(nameOrID string) error {
	_, state, err := e.live(nameOrID)
	if err == nil && state.Status == containers.Paused {
		err = hint.Errorf("nook unpause "+nameOrID, "start container %s: it %w", nameOrID, containers.ErrPaused)
	}
	return err
}

// StartAttached is Start in the foreground: as Run, with a container that is
// there. Streams.In counts only for one that was created to have a stdin.
func (e *Engine) StartAttached(ctx context.Context, nameOrID string, streams Streams) (code int, err error) {
	h, err := e.hold(ctx, nameOrID)
	if errors.Is(err, ErrRunning) {
		return e.Attach(ctx, nameOrID, streams)
	}
	if err != nil {
		return 0, err
	}
	defer h.lock.Release()
	if !h.cfg.OpenStdin {
		streams.In = nil
	}
	s, err := e.launch(ctx, h, streams.Terminal, 0)
	if err != nil {
		return 0, err
	}
	defer s.close()
	code, _, err = s.attach(ctx, streams)
	if err == nil && !h.cfg.Restart.Wanted() {
		s.wait()
	} else {
		reap(s)
	}
	return code, err
}

// holdTime is how long a command waits for another that is at work on the same
// container; holdStep how long between two looks.
const (
	holdTime = 10 * time.Second
	holdStep = 3 * time.Millisecond
	// endTime is how long a monitor may take from its socket's end to its own.
	endTime = time.Second
)

// hold takes a container that nobody owns. ErrRunning: its monitor lives.
func (e *Engine) hold(ctx context.Context, nameOrID string) (held, error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return held{}, err
	}
	lock, err := e.waitUnowned(ctx, ct)
	if err != nil {
		return held{}, err
	}
	cfg, err := ct.Config()
	if err == nil {
		err = e.checkIDs(cfg)
	}
	if err != nil {
		lock.Release()
		return held{}, err
	}
	e.settleHeld(ct) // a monitor that was killed left no last word
	return held{Container: ct, cfg: cfg, lock: lock}, nil
}

// errMeanwhile is an ErrRunning that was none at the first look.
var errMeanwhile = fmt.Errorf("%w: another command started it", ErrRunning)

// waitUnowned takes the lock of a container that doesn't run, also when
// another command or a monitor that ends still has it for a moment.
func (e *Engine) waitUnowned(ctx context.Context, ct containers.Container) (*containers.Lock, error) {
	late := time.Now().Add(holdTime)
	running := ErrRunning
	for {
		lock, err := ct.TryLock()
		if !errors.Is(err, containers.ErrBusy) {
			return lock, err
		}
		state, serr := ct.State()
		if serr == nil && state.Status.Live() {
			return nil, hint.Errorf("nook stop it first", "container %.12s: %w", ct.ID, running)
		}
		running = errMeanwhile
		// Who holds it may be about to replace a state that can't be read.
		if serr != nil && time.Now().After(late.Add(endTime-holdTime)) {
			return nil, serr
		}
		if time.Now().After(late) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(holdStep):
		}
	}
}

// live finds a container that runs.
func (e *Engine) live(nameOrID string) (containers.Container, containers.State, error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return ct, containers.State{}, err
	}
	state, err := ct.State()
	if err == nil && !state.Status.Live() {
		err = hint.Errorf("nook start it first", "container %s: %w", nameOrID, ErrNotRunning)
	}
	return ct, state, err
}

// ErrNotRunning says that a container doesn't run.
var ErrNotRunning = containers.ErrNotRunning

// ask sends a request to the monitor of a container that runs.
func (e *Engine) ask(ctx context.Context, nameOrID string, r containers.Request) error {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	_, err = askMonitor(ctx, ct, r)
	return err
}

// askMonitor is ask for a container that was found.
func askMonitor(ctx context.Context, ct containers.Container, r containers.Request) (containers.Result, error) {
	conn, err := connect(ctx, ct)
	if err != nil {
		return containers.Result{}, err
	}
	defer conn.Close()
	result, err := conn.Ask(ctx, r)
	if errors.Is(err, containers.ErrNoMonitor) {
		// It ended meanwhile; or it was killed, and the container with it.
		if again, cerr := connect(ctx, ct); cerr != nil {
			return result, cerr
		} else if cerr := again.Close(); cerr != nil {
			return result, cerr
		}
	}
	return result, err
}

// connect connects to the monitor of a container that runs. A monitor that
// ends takes its socket away a moment before or after it says so.
func connect(ctx context.Context, ct containers.Container) (*containers.Conn, error) {
	// Who answers lives: the state needs to be read only when nobody does. Who
	// was waited for in vain is not asked again.
	conn, err := ct.Connect(ctx, containers.State{})
	if err == nil || !errors.Is(err, containers.ErrNoMonitor) || errors.Is(err, containers.ErrSilent) {
		return conn, err
	}
	late := time.Now().Add(endTime)
	for {
		state, err := ct.State()
		if err == nil && !state.Status.Live() {
			err = hint.Errorf("nook start it first", "container %.12s: %w", ct.ID, ErrNotRunning)
		}
		if err != nil {
			return nil, err
		}
		conn, err := ct.Connect(ctx, state)
		if err == nil || !errors.Is(err, containers.ErrNoMonitor) || errors.Is(err, containers.ErrSilent) ||
			state.Socket == "" || time.Now().After(late) && !state.Starting || time.Now().After(late.Add(holdTime-endTime)) {
			return conn, err
		}
		if _, err := ct.Config(); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("container %.12s: %w", ct.ID, containers.ErrNotFound)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(holdStep):
		}
	}
}

// StopOptions say how a container is asked to end.
type StopOptions struct {
	Signal  string // "": the container's own
	Timeout *int   // seconds before it is killed; nil: the container's own; negative: never
}

// Stop ends a container and waits for its end: by its stop signal and, after
// the time-out, by SIGKILL. Its restart policy doesn't start it again. One that
// doesn't run is left alone.
func (e *Engine) Stop(ctx context.Context, nameOrID string, o StopOptions) error {
	return e.stop(ctx, nameOrID, o, false)
}

func (e *Engine) stop(ctx context.Context, nameOrID string, o StopOptions, keep bool) error {
	r := containers.Request{Verb: containers.VerbStop, Timeout: o.Timeout, Keep: keep}
	if o.Signal != "" {
		sig, err := containers.ParseSignal(o.Signal)
		if err != nil {
			return err
		}
		r.Signal = int(sig)
	}
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	_, err = askMonitor(ctx, ct, r)
	switch {
	case errors.Is(err, ErrNotRunning):
		return nil
	case errors.Is(err, containers.ErrNoMonitor):
		return withoutSocket(ctx, ct)
	}
	return err
}

// withoutSocket ends a container whose monitor doesn't answer by ending the
// monitor, which is the end of everything in it.
func withoutSocket(ctx context.Context, ct containers.Container) error {
	state, err := ct.State()
	if err != nil || !state.Status.Live() {
		return err
	}
	return ct.KillMonitor(ctx, state)
}

// Kill sends a signal to a container's first process; "" is KILL.
func (e *Engine) Kill(ctx context.Context, nameOrID, signal string) error {
	sig, err := containers.ParseSignal(first(signal, "KILL"))
	if err != nil {
		return err
	}
	return e.ask(ctx, nameOrID, containers.Request{Verb: containers.VerbSignal, Signal: int(sig)})
}

// Restart stops a container, if it runs, and starts it again.
func (e *Engine) Restart(ctx context.Context, nameOrID string, o StopOptions) error {
	if err := e.stop(ctx, nameOrID, o, true); err != nil {
		return err
	}
	if err := e.Start(ctx, nameOrID); err != nil {
		return err
	}
	if ct, err := e.containers.Find(nameOrID); err == nil {
		if cfg, err := ct.Config(); err == nil {
			e.event("restart", cfg)
		}
	}
	return nil
}

// Pause stops every process of a container where it is.
func (e *Engine) Pause(ctx context.Context, nameOrID string) error {
	return e.ask(ctx, nameOrID, containers.Request{Verb: containers.VerbPause})
}

// Unpause lets a paused container go on.
func (e *Engine) Unpause(ctx context.Context, nameOrID string) error {
	return e.ask(ctx, nameOrID, containers.Request{Verb: containers.VerbUnpause})
}

// Attach is the foreground of a container that runs, until it ends.
func (e *Engine) Attach(ctx context.Context, nameOrID string, streams Streams) (code int, err error) {
	ct, state, err := e.live(nameOrID)
	if err != nil {
		return 0, err
	}
	if state.Status == containers.Paused {
		return 0, hint.Errorf("nook unpause it first", "container %s %w", nameOrID, containers.ErrPaused)
	}
	cfg, err := ct.Config()
	if err != nil {
		return 0, err
	}
	if !cfg.OpenStdin {
		streams.In = nil
	}
	conn, err := connect(ctx, ct)
	if err != nil {
		return 0, err
	}
	if _, err := conn.Ask(ctx, containers.Request{Verb: containers.VerbAttach}); err != nil {
		_ = conn.Close()
		return 0, err
	}
	if streams.Started != nil {
		streams.Started(ct.ID)
	}
	t := newTalk(conn, conn, streams)
	defer t.close()
	code, err = t.run(ctx, nil)
	if errors.Is(err, ErrDetached) {
		e.event("detach", cfg)
	}
	if err == nil && !cfg.Restart.Wanted() {
		t.untilSettled(ctx)
	}
	return code, err
}

// event tells what happened to whoever reads the events. That it can't be
// written is no reason for anything.
func (e *Engine) event(action string, cfg *containers.Config, more ...string) {
	_ = events.Append(e.root, events.Container(action, cfg.ID, cfg.Name, cfg.Image, cfg.Labels, more...))
}

// ContainerTTY tells whether a container has a terminal, and a stdin.
func (e *Engine) ContainerTTY(nameOrID string) (tty, stdin bool, err error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return false, false, err
	}
	cfg, err := ct.Config()
	if err != nil {
		return false, false, err
	}
	return cfg.TTY, cfg.OpenStdin, nil
}
