package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
)

// AgainName is argv[0] of who starts a container's first process once more,
// for a monitor: the engine, with the data root and the container's id as
// arguments and the descriptors below. It forks that process as a child of the
// monitor (CLONE_PARENT), tells its pid over AgainAnswer and goes.
const AgainName = "nook-again"

// The descriptors of who starts a container again.
const (
	AgainAnswer = 3 + iota // JSON, Again
	AgainReport            // for the steps of the first process
	AgainStdin             // its streams; or
	AgainStdout
	AgainStderr
	AgainTTY // the socket over which it sends its terminal
	againEnd
)

// Again is the answer of who started a container again. It comes twice: as
// soon as there is a pid, so that it can be killed when the helper was, and
// when all is done. An error is the last.
type Again struct {
	Pid   int    `json:"pid"` // as the monitor counts
	Error string `json:"error,omitempty"`
}

// docker's back-off: twice as long each time, and from the beginning after a
// run of 10 seconds (moby, restartmanager).
const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = time.Minute
	steady       = 10 * time.Second
)

// wantedAgain tells whether the restart policy wants another run.
func (m *monitor) wantedAgain(code int) bool {
	policy := m.config.Restart
	if cfg, err := m.container.Config(); err == nil { // nook update changes it
		policy = cfg.Restart
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isStopped() {
		return false
	}
	switch policy.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (policy.Retries == 0 || m.state.Restarts < policy.Retries)
	}
	return false
}

// again waits and starts the entrypoint once more; nil when the container is
// to be left as it is.
func (m *monitor) again(delay time.Duration) *life {
	// A run that was over at once was not told as one, nor were we.
	m.failure(m.attend())
	m.update(func(s *containers.State) {
		s.Status = containers.Restarting
		s.Restarts++
	})
	select {
	case <-time.After(delay):
	case <-m.stopped:
		return nil
	}
	for {
		l, err := m.restart()
		if err == nil {
			return l
		}
		m.mu.Lock()
		m.state.Error, m.state.ExitCode = err.Error(), 125
		var rep notStarted
		if errors.As(err, &rep) {
			m.state.ExitCode = notStartedCode(rep.Errno)
		}
		m.mu.Unlock()
		if !m.wantedAgain(125) {
			return nil
		}
		delay = min(2*delay, longestDelay)
		select {
		case <-time.After(delay):
		case <-m.stopped:
			return nil
		}
		m.update(func(s *containers.State) { s.Restarts++ })
	}
}

// restart is one try.
func (m *monitor) restart() (l *life, err error) {
	var ends ends
	defer ends.close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	defer null.Close()
	answer, answerW := ends.pipe()
	report, reportW := ends.pipe()
	files := make([]*os.File, againEnd)
	files[0], files[1], files[2] = null, null, null
	files[AgainAnswer], files[AgainReport] = answerW, reportW
	io := ends.life(m.config, files)
	if ends.err != nil {
		return nil, ends.err
	}
	helper, err := os.StartProcess("/proc/self/exe", []string{AgainName, m.root, m.config.ID}, &os.ProcAttr{Files: files, Env: environment()})
	if err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	ends.closeInside()
	var told Again
	answers := json.NewDecoder(answer)
	derr := answers.Decode(&told)
	if derr == nil && told.Error == "" {
		derr = answers.Decode(&told) // whose fields stay when there is none
	}
	_, werr := helper.Wait()
	if derr != nil || told.Error != "" {
		if told.Pid > 0 {
			_ = unix.Kill(told.Pid, unix.SIGKILL)
			_, _ = reap(told.Pid)
		}
		if told.Error != "" {
			return nil, errors.New(told.Error)
		}
		return nil, errors.Join(errors.New("restart: no answer"), derr, werr)
	}
	if m.config.TTY {
		io = newTerminal(ends.terminal())
	}
	ends.taken()
	_ = answer.Close()
	l = &life{pid: told.Pid, io: io, over: make(chan struct{})}
	if err := m.begun(l, report); err != nil {
		_, _ = reap(l.pid)
		l.io.close()
		return nil, err
	}
	return l, nil
}

// life makes the streams of a container's first process and puts their inner
// ends to where it will find them.
func (e *ends) life(cfg *containers.Config, files []*os.File) *stdio {
	if cfg.TTY {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			e.err = errors.Join(e.err, fmt.Errorf("restart: socketpair: %w", err))
			return nil
		}
		_ = unix.SetNonblock(p[0], true)
		e.tty = os.NewFile(uintptr(p[0]), "terminal")
		files[AgainTTY] = os.NewFile(uintptr(p[1]), "terminal")
		e.inside = append(e.inside, files[AgainTTY])
		return nil
	}
	var in, out, errs *os.File
	if cfg.OpenStdin {
		in, files[AgainStdin] = e.inPipe()
	}
	out, files[AgainStdout] = e.pipe()
	errs, files[AgainStderr] = e.pipe()
	if e.err != nil {
		return nil
	}
	return newStdio(in, out, errs)
}
