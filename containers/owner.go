package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// ErrStranger says that a container's state names a process that is no monitor
// of it.
var ErrStranger = errors.New("is not its monitor")

// endStep is how long a wait for a process' end sleeps between two looks.
const endStep = 3 * time.Millisecond

// KillMonitor ends the monitor that a state names, and with it all that runs in
// the container, and waits for its end. A state is a file, and a pid is used
// again: only who began when the state says so and has the container's lock is
// killed, through a pidfd. ErrStranger: it was another. One that is gone
// already is no error.
func (c Container) KillMonitor(ctx context.Context, s State) error {
	p := s.Monitor
	// Before the look at who it is, so that it is the same one.
	pidfd, err := unix.PidfdOpen(p.Pid, 0)
	if errors.Is(err, unix.ESRCH) || !p.Alive() {
		if err == nil {
			_ = unix.Close(pidfd)
		}
		return nil
	}
	kill := func() error { return unix.Kill(p.Pid, unix.SIGKILL) } // pidfd_open(2) is refused here
	if err == nil {
		defer unix.Close(pidfd)
		kill = func() error { return unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) }
	}
	holds, err := c.lockedBy(p.Pid)
	switch {
	case err != nil && p.Alive():
		return fmt.Errorf("container %.12s: look at its monitor: %w", c.ID, err)
	case err == nil && !holds && p.Alive():
		return hint.Errorf("if nobody runs it any more, remove its state.json", "container %.12s: process %d %w", c.ID, p.Pid, ErrStranger)
	}
	if err := kill(); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("container %.12s: kill its monitor: %w", c.ID, err)
	}
	for p.Alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(endStep):
		}
	}
	return nil
}

// lockedBy tells whether a process has the container's directory open, locked:
// proc_pid_fdinfo(5) names the lock of an open file.
func (c Container) lockedBy(pid int) (bool, error) {
	dir, err := os.Stat(c.Path)
	if err != nil {
		return false, err
	}
	proc := "/proc/" + strconv.Itoa(pid)
	fds, err := os.ReadDir(proc + "/fd")
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		f, err := os.Stat(proc + "/fd/" + fd.Name())
		if err != nil || !os.SameFile(f, dir) {
			continue
		}
		info, err := os.ReadFile(proc + "/fdinfo/" + fd.Name())
		if err == nil && strings.Contains(string(info), "FLOCK") {
			return true, nil
		}
	}
	return false, nil
}
