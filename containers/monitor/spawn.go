package monitor

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// The descriptors that a monitor finds open when it begins.
const (
	fdControl = 3 + iota // the first client
	fdDir                // the container's directory
	fdReport             // what became of pid 1's steps
	fdStdin              // writing end, where stdin is kept open
	fdStdout             // reading ends
	fdStderr
	fdTTY  // socket over which pid 1 sends its terminal
	fdsEnd // one more than the last
)

// Name is argv[0] of a monitor.
const Name = "nook-monitor"

// StepFork is the name of the step that makes the container's pid namespace.
const StepFork = "fork pid 1"

// Spawn describes how a monitor is started.
type Spawn struct {
	ID string
	// RuntimeDir is where the control socket lies when the container's own
	// directory can't have one.
	RuntimeDir string
	// Pid1 are the steps of the container's first process, which begins in a
	// pid namespace of its own.
	Pid1 *raw.Program
	// Maps are steps that run first: writing our own id maps, or waiting
	// until another wrote them.
	Maps func(p *raw.Program)
	// MapsFirst: pid 1 is forked after Maps. Otherwise it waits by itself and
	// makes its namespaces meanwhile.
	MapsFirst bool
	// Descriptors by the numbers above, all of 64 or more; -1 for none.
	Control, Dir, Report, Stdin, Stdout, Stderr, TTY int
}

// timerSlack is how late a monitor's timers may be, in nanoseconds (prctl(2),
// PR_SET_TIMERSLACK; execve keeps it).
const timerSlack = 5_000_000

// lowest is the lowest number that a descriptor given to Spawn may have:
// otherwise placing one could overwrite another.
const lowest = 64

// High moves a descriptor out of the way of the numbers a monitor is given.
// The old one stays open.
func High(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	return n, nil
}

// Steps adds the monitor's raw part: it forks pid 1 and becomes nook again, as
// pid 1 of a pid namespace of its own, so that its death ends the container
// whatever the container did (a change of user clears PR_SET_PDEATHSIG).
// While the new program starts, pid 1 already mounts.
func (s *Spawn) Steps(p *raw.Program) {
	p.Call("begin a session", unix.SYS_SETSID)
	if s.MapsFirst {
		s.Maps(p)
	}
	p.Fork(StepFork, unix.CLONE_NEWPID, s.Pid1)
	if !s.MapsFirst {
		s.Maps(p)
	}
	p.CloseOnExec() // the caller's own: a monitor outlives it
	for i, fd := range []int{s.Control, s.Dir, s.Report, s.Stdin, s.Stdout, s.Stderr, s.TTY} {
		if fd >= 0 {
			p.Call("place a descriptor", unix.SYS_DUP3, fd, fdControl+i, 0)
		}
	}
	// Nothing in a monitor is so urgent: its Go runtime's own watch (sysmon)
	// would wake up every 70 µs while a container starts.
	p.Call("set the timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	p.Exec("exec the monitor", "/proc/self/exe", p.Strings([]string{Name, s.ID, s.RuntimeDir}), p.Strings(environment()))
	p.Fail("exec the monitor")
}

// environment tunes Go for a process that mostly waits: one thread that runs
// Go code, whose start costs less.
func environment() []string { return []string{"GOMAXPROCS=1"} }
