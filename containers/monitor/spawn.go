package monitor

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/frame"
	"nook/internal/raw"
	"nook/internal/raw/walk"
)

// The descriptors that a monitor finds open when it begins.
const (
	fdControl = 3 + iota // the first client
	fdDir                // the container's directory
	fdReport             // what became of pid 1's steps
	fdStdin              // writing end, where stdin is kept open
	fdStdout             // reading ends
	fdStderr
	fdTTY   // socket over which pid 1 sends its terminal
	fdLeash // reading end; its end of file is the container's
	fdsEnd  // one more than the last
)

// Name is argv[0] of a monitor.
const Name = "nook-monitor"

// StepFork is the name of the step that makes the container's pid namespace.
const StepFork = "fork pid 1"

// Spawn describes how a monitor is started, in two parts: Begin knows nothing
// of the container but its streams, so that the fork, pid 1's namespaces and
// the id maps are made while the command still looks for the image.
type Spawn struct {
	// Known to Begin:

	// Pid1 are the steps of the container's first process, which begins in a
	// pid namespace of its own.
	Pid1 *raw.Program
	// MapSelf are steps that write our own id maps; nil: another writes them.
	MapSelf func(p *raw.Program)
	// Ahead is not nil where the monitor was forked already, and is given its
	// program.
	Ahead *raw.Ahead
	// Foreign are descriptors of the command's, closed before pid 1 is forked: it
	// and the monitor wait for what comes over the other ends, and with a copy
	// of each other's they would wait for ever when the command was killed.
	Foreign []int
	// Keep are descriptors that pid 1 needs.
	Keep []int
	// Descriptors by the numbers above, all moved by High; -1 for none.
	Control, Report, Stdin, Stdout, Stderr, TTY, Leash int
	// Null is /dev/null, for the monitor's own standard streams.
	Null int

	// Known to Become:

	ID string
	// RuntimeDir is where the control socket lies when the container's own
	// directory can't have one.
	RuntimeDir string
	// Patience is how long the monitor waits for the container's end before it
	// starts at all; 0: it starts at once. A client must be there that can
	// deal with frame.Ended.
	Patience time.Duration
	// Exe is the path of our executable, "" when it has none any more.
	Exe string

	pid1, dir raw.Reg
	late      *raw.Late
}

// timerSlack is how late a monitor's timers may be, in nanoseconds (prctl(2),
// PR_SET_TIMERSLACK; execve keeps it).
const timerSlack = 5_000_000

// lowest is the lowest number that a descriptor given to Spawn may have:
// otherwise placing one could overwrite another. It isn't higher than needed: a
// table of descriptors grows at number 64, and in a process with threads that
// waits for an RCU grace period, longer than all the rest takes
// (fs/file.c, expand_fdtable).
const lowest = 16

// High moves a descriptor out of the way of the numbers a monitor is given.
// The old one stays open.
func High(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return -1, fmt.Errorf("duplicate descriptor %d: %w", fd, err)
	}
	return n, nil
}

// Begin adds the monitor's first part: it forks pid 1, as pid 1 of a pid
// namespace of its own, so that its death ends the container whatever the
// container did (a change of user clears PR_SET_PDEATHSIG). Then it waits for
// the container's directory, which comes over Control (Send) and means that
// the id maps are written and that the rest of the program is there.
func (s *Spawn) Begin(p *raw.Program) {
	if s.Ahead != nil {
		s.Ahead.OwnDescriptors(p)
	}
	p.Call("begin a session", unix.SYS_SETSID)
	// Close-on-exec is of no use to who waits before it executes anything: a
	// program that starts several containers at once would otherwise leave each
	// with the ends of the others' sockets, waiting for ever when it is killed.
	p.CloseOthers(append([]int{s.Control, s.Report, s.Stdin, s.Stdout, s.Stderr, s.TTY, s.Leash, s.Null}, s.Keep...)...)
	for _, fd := range s.Foreign {
		p.Call("close a descriptor of the command's", unix.SYS_CLOSE, fd).Ignore(unix.EBADF)
	}
	if s.MapSelf != nil {
		s.MapSelf(p)
	}
	if s.Ahead != nil {
		s.Ahead.Outlive(p)
	}
	s.pid1 = p.Fork(StepFork, unix.CLONE_NEWPID, s.Pid1).Save()
	s.dir = p.ReceiveFD("wait for the command", s.Control)
	s.late = p.Late("become the monitor")
}

// Become adds the rest: it becomes nook again. While the new program starts,
// pid 1 already mounts.
func (s *Spawn) Become() error {
	p := s.late.Part()
	// It came with the lowest number that was free.
	dir := p.Call("move the directory", unix.SYS_FCNTL, s.dir, unix.F_DUPFD_CLOEXEC, lowest).Save()
	for i, fd := range []int{s.Control, -1, s.Report, s.Stdin, s.Stdout, s.Stderr, s.TTY, s.Leash} {
		switch to := fdControl + i; {
		case to == fdDir:
			p.Call("place the directory", unix.SYS_DUP3, dir, to, 0)
		case fd >= 0:
			p.Call("place a descriptor", unix.SYS_DUP3, fd, to, 0)
		default:
			p.Call("leave a number empty", unix.SYS_CLOSE, to).Ignore(unix.EBADF)
		}
	}
	// The caller's own streams are not kept open by who outlives it, nor is
	// anything else.
	for fd := range 3 {
		p.Call("give up a standard stream", unix.SYS_DUP3, s.Null, fd, 0)
	}
	p.CloseFrom(fdsEnd)
	if s.Patience > 0 {
		p.Or(func() { s.outlive(p, s.pid1) }, func() { s.become(p) })
	} else {
		s.become(p)
	}
	if err := s.late.Seal(); err != nil {
		return fmt.Errorf("prepare the monitor: %w", err)
	}
	return nil
}

// Send gives a monitor that has begun its container's directory. control is
// the command's end of Control, and nothing was sent over it yet.
func Send(control, dir int) error {
	if err := unix.Sendmsg(control, []byte{0}, unix.UnixRights(dir), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("let the monitor go on: %w", err)
	}
	return nil
}

// outlive adds the wait for a container that is over in no time: for it, the
// start of a Go program would take longer than all the rest. Whatever else
// happens meanwhile (time passes, the client speaks or goes away) is an error
// here, and the monitor becomes what it is.
func (s *Spawn) outlive(p *raw.Program, pid raw.Reg) {
	pidfd := p.Call("open pid 1", unix.SYS_PIDFD_OPEN, pid, 0).Save()
	p.Call("place pid 1", unix.SYS_DUP3, pidfd, fdsEnd, unix.O_CLOEXEC)
	// struct pollfd { int fd; short events, revents; }: a word each
	const events = unix.POLLIN << 32
	ended, spoke := uint64(fdsEnd|events), uint64(fdControl|events)
	fds := p.Words(uintptr(ended), uintptr(spoke))
	timeout := p.Words(0, uintptr(s.Patience.Nanoseconds()))
	p.Call("wait for the end", unix.SYS_PPOLL, fds, 2, timeout, 0, 0)
	p.Differs("see the end", fds, ended)
	p.Same("hear nothing", fds+8, spoke)
	// The frame: a header, and the siginfo_t that waitid(2) writes behind it.
	const header, siginfo = 5, 128
	message := p.Space(8 + siginfo)
	p.Put(message+8-header, []byte{byte(frame.Ended), 0, 0, 0, siginfo})
	p.Call("take the status", unix.SYS_WAITID, unix.P_PID, pid, message+8, unix.WEXITED|unix.WNOWAIT, 0)
	p.Call("tell the end", unix.SYS_WRITE, fdControl, message+8-header, header+siginfo)
	// Any other word than Done, as more input, is for the monitor to read; so
	// is the end of the connection.
	answer := p.Space(8)
	p.Call("wait for the client", unix.SYS_RECVFROM, fdControl, answer, 1, unix.MSG_PEEK, 0, 0)
	p.Same("hear that all is done", answer, uint64(frame.Done))
	p.Call("end", unix.SYS_EXIT_GROUP, 0)
}

// become adds the execution of nook as a monitor, in a mount namespace of its
// own. What it forks later is seen in the container before it executed
// something of the container's, by /proc/PID/exe: that must not be a way to
// change our file (CVE-2019-5736), so it runs from a read-only clone of the
// mount it lies on. A host where mounts can't be cloned gets the file itself,
// which nobody can write to while it is executed, but whose mode can be
// changed.
func (s *Spawn) become(p *raw.Program) {
	// Nothing in a monitor is so urgent: its Go runtime's own watch (sysmon)
	// would wake up every 70 µs while a container starts.
	p.Call("set the timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)
	args := []string{Name, s.ID, s.RuntimeDir}
	if s.Leash >= 0 {
		args = append(args, "leash")
	}
	argv, env := p.Strings(args), p.Strings(environment())
	if s.Exe != "" {
		p.Or(func() {
			p.Call("make the monitor's mount namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
			// Slaves, not private, or a long life pins what the host unmounts.
			p.Call("follow the host's mounts", unix.SYS_MOUNT, 0, "/", 0, unix.MS_REC|unix.MS_SLAVE, 0)
			exe := p.Call("clone the executable", unix.SYS_OPEN_TREE, unix.AT_FDCWD, s.Exe, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Save()
			attr := p.Words(unix.MOUNT_ATTR_RDONLY, 0, 0, 0)
			p.Call("make the executable read-only", unix.SYS_MOUNT_SETATTR, exe, "", unix.AT_EMPTY_PATH, attr, unix.MOUNT_ATTR_SIZE_VER0)
			p.Call("exec the monitor", unix.SYS_EXECVEAT, exe, "", argv, env, unix.AT_EMPTY_PATH)
		}, func() {})
	}
	p.Exec("exec the monitor", "/proc/self/exe", argv, env)
	p.Fail("exec the monitor")
}

// environment tunes Go for a process that mostly waits: one thread that runs
// Go code, whose start costs less.
func environment() []string {
	env := []string{"GOMAXPROCS=1"}
	if walk.RaceDetector {
		env = append(env, "GORACE="+os.Getenv("GORACE")) // it would wait for a second at its end
	}
	return env
}
