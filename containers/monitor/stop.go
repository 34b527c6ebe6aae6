package monitor

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/pause"
	"nook/internal/hint"
)

// signal sends a signal to the entrypoint, if it is there.
func (m *monitor) signal(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life != nil {
		_ = unix.Kill(m.life.pid, unix.Signal(n))
	} else if m.state.Started.IsZero() { // it is being started
		_ = unix.Kill(firstChild, unix.Signal(n))
	}
}

// kill is nook kill: a signal that ends a container as its stop signal does
// ends it for good, whatever its restart policy says, and SIGKILL is answered
// when it ended (moby, daemon/kill.go).
func (m *monitor) kill(gone context.Context, sig unix.Signal) error {
	own := m.stopSignal()
	if m.config.StopSignal == "" || sig == own || sig == unix.SIGKILL {
		m.stopping()
	}
	l, err := m.running()
	if err != nil {
		return err
	}
	if sig == unix.SIGKILL {
		_ = m.unpause() // v1's freezer holds even the killed
	}
	m.event("kill", "signal", fmt.Sprint(int(sig)))
	if err := unix.Kill(l.pid, sig); err != nil {
		return fmt.Errorf("kill container %s: %w", m.config.Name, err)
	}
	if sig == unix.SIGKILL {
		m.wait(gone)
	}
	return nil
}

// stopping marks the end as wanted: no restart follows.
func (m *monitor) stopping() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isStopped() {
		m.state.Stopped = true
		close(m.stopped)
	}
}

func (m *monitor) isStopped() bool {
	select {
	case <-m.stopped:
		return true
	default:
		return false
	}
}

func (m *monitor) stopSignal() unix.Signal {
	if sig, err := containers.ParseSignal(m.config.StopSignal); err == nil && m.config.StopSignal != "" {
		return sig
	}
	return unix.SIGTERM
}

// stopTimeout is docker's, in seconds.
const stopTimeout = 10

// stop asks the entrypoint to end, and makes it. It returns when the container
// is left for good, or when the client went away; then the stop goes on.
func (m *monitor) stop(gone context.Context, req containers.Request) (containers.Result, error) {
	sig, timeout := m.stopSignal(), stopTimeout
	if m.config.StopTimeout != nil {
		timeout = *m.config.StopTimeout
	}
	if req.Signal != 0 {
		sig = unix.Signal(req.Signal)
	}
	if req.Timeout != nil {
		timeout = *req.Timeout
	}
	m.mu.Lock()
	m.keep = m.keep || req.Keep
	m.mu.Unlock()
	m.stopping()
	if l, err := m.running(); err == nil {
		_ = m.unpause()
		m.event("kill", "signal", fmt.Sprint(int(sig)))
		_ = unix.Kill(l.pid, sig)
		if sig != unix.SIGKILL {
			go m.kills(l, timeout)
		}
	} else {
		m.hub.hurry() // who doesn't read the last output holds the end up
	}
	result := m.wait(gone)
	if sig != unix.SIGKILL || timeout != 0 { // or it is an rm -f
		m.event("stop")
	}
	return result, nil
}

// kills ends a life that doesn't end by itself in time.
func (m *monitor) kills(l *life, seconds int) {
	if seconds < 0 {
		return
	}
	late := time.NewTimer(time.Duration(seconds) * time.Second)
	defer late.Stop()
	select {
	case <-l.over:
	case <-late.C:
		m.event("kill", "signal", "9")
		_ = unix.Kill(l.pid, unix.SIGKILL)
	}
}

// end ends the container at once.
func (m *monitor) end() {
	m.stopping()
	if l, err := m.running(); err == nil {
		_ = m.unpause()
		_ = unix.Kill(l.pid, unix.SIGKILL)
	}
}

func (m *monitor) pause() error {
	l, err := m.running()
	if err != nil {
		return err
	}
	m.pausing.Lock()
	defer m.pausing.Unlock()
	if l.paused {
		return hint.Errorf("nook unpause "+m.config.Name, "container %s %w", m.config.Name, containers.ErrAlreadyPaused)
	}
	self, err := containers.Self()
	if err != nil {
		return err
	}
	if l.pauser == nil {
		l.pauser = pause.New(m.config.ID, self.Pid)
	}
	if err := l.pauser.Pause(); err != nil {
		return err
	}
	m.mu.Lock()
	l.paused = true
	m.mu.Unlock()
	m.update(func(s *containers.State) { s.Status = containers.Paused })
	m.event("pause")
	return nil
}

func (m *monitor) unpause() error {
	l, err := m.running()
	if err != nil {
		return err
	}
	m.pausing.Lock()
	defer m.pausing.Unlock()
	if !l.paused {
		return hint.Errorf("see nook ps", "container %s %w", m.config.Name, containers.ErrNotPaused)
	}
	if err := l.pauser.Resume(); err != nil {
		return err
	}
	m.mu.Lock()
	l.paused = false
	m.mu.Unlock()
	m.update(func(s *containers.State) { s.Status = containers.Running })
	m.event("unpause")
	return nil
}
