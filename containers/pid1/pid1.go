// Package pid1 starts the first process of a container: it composes the root
// file system, the confinement and the entrypoint into one list of steps that
// a raw fork runs (internal/raw), and answers the one question that only the
// mounted root can: who is USER.
//
//	l, err := pid1.Begin(early)
//	defer l.Close()
//	pid, err := ... start l.Program(), by itself or as a monitor's child ...
//	err = l.Build(spec) // when all is known
//	err = l.Go()        // when the id maps are written
//	err = l.Finish()    // the root arrives, the user is looked up, the rest is sent
//
// The process never runs Go. It becomes the entrypoint, or, with Init, nook's
// own reaper from a mount that nobody can write to.
//
//	launcher                              pid 1
//	   | ---------- clone -----------------> |
//	   |  find image, layers, make record    |  make namespaces
//	   | -- "the program is there" --------> |
//	   |                                     |  mount, pivot_root
//	   | <-- descriptor of the root -------- |
//	   |  look up USER                       |  /proc, /sys, /dev, binds, masks
//	   | -- "the late part is there" ------> |
//	   |                                     |  confine, execve
//	   | <== report pipe: EOF or an error == |
package pid1

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nook/containers/entry"
	"nook/internal/fdpass"
	"nook/internal/hint"
	"nook/internal/raw"
	"nook/internal/safepath"
	"nook/namespaces/confine"
	"nook/rootfs"
)

// Spec is all that pid 1 needs to know.
type Spec struct {
	Root       *rootfs.Root
	Args       []string // entrypoint and arguments
	Env        []string
	User       string // name|uid[:group|gid]
	WorkingDir string
	Hostname   string
	// Loopback brings lo up: the network namespace is new.
	Loopback bool
	Caps     confine.Caps
	Filter   []unix.SockFilter
	// Stdio are descriptors for 0, 1 and 2; -1 is the container's /dev/null.
	// With TTY they aren't used.
	Stdio [3]int
	// TTY gives the entrypoint a terminal of the container's own devpts and
	// sends its other end over this descriptor (a SOCK_SEQPACKET socket);
	// -1 for none.
	TTY int
	// Rows and Cols are the terminal's size when the entrypoint begins; 0 when
	// it isn't known.
	Rows, Cols uint16
	// Init runs the entrypoint below nook's own reaper: the executable.
	Init *Executable
}

// Executable is a program of the host that is run inside without being
// writable there.
type Executable struct {
	Path string // to clone from, or "" when FD is a sealed memfd
	FD   int
	Argv []string // before the entrypoint's own arguments
}

// Early is what pid 1 needs to know before all that: it is forked while its
// launcher still looks for the image.
type Early struct {
	// SingleID says that only id 0 exists in the user namespace.
	SingleID bool
	// Namespaces are the CLONE_NEW* flags of what pid 1 makes for itself: all
	// but the user and the pid namespace, in which it is started.
	Namespaces uintptr
}

// Launch is a start on its way.
type Launch struct {
	begun Early
	// isEarly: see early.
	isEarly bool
	spec    Spec
	prog    *raw.Program
	rest    *raw.Late // all that needs Spec
	late    *raw.Late // all that needs the user
	sync    [2]int    // ours, pid 1's
	ours    *os.File
	rootFD  int // the number under which pid 1 sends its root
	procFD  int // the number of the host's /proc in pid 1, -1 for none
}

// programSize has room for the arguments and the environment that execve(2)
// takes at most, 6 MiB, in many short strings. What isn't used costs nothing.
const programSize = 32 << 20

// Begin prepares the part of pid 1 that needs no Spec. It opens descriptors
// that Close closes.
func Begin(early Early) (*Launch, error) {
	l := &Launch{begun: early, sync: [2]int{-1, -1}, rootFD: -1, procFD: -1}
	var err error
	if l.sync, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	// Non-blocking for us alone: Go's poller waits, and no thread does. The
	// number stays known in sync, as File.Fd would undo it.
	_ = unix.SetNonblock(l.sync[0], true)
	l.ours = os.NewFile(uintptr(l.sync[0]), "pid 1")
	if l.rootFD, err = reserve(); err != nil {
		l.Close()
		return nil, err
	}
	if early.SingleID {
		if l.procFD, err = reserve(); err != nil {
			l.Close()
			return nil, err
		}
	}
	p := raw.New(programSize)
	l.prog = p
	p.Call("close the launcher's end", unix.SYS_CLOSE, l.sync[0]).Ignore(unix.EBADF)
	// A monitor has a slack of its own; this is the kernel's default.
	p.Call("set the timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, 50_000, 0, 0, 0)
	p.Call("begin a session", unix.SYS_SETSID)
	// The entrypoint's, and of what is made for it: the caller's may close that
	// to all but root.
	p.Call("set the umask", unix.SYS_UMASK, 0o022)
	// Not by the flags of clone(2), in whose call the parent waits for the new
	// namespaces to be made: it has better things to do meanwhile.
	p.Call(StepNamespaces, unix.SYS_UNSHARE, early.Namespaces)
	p.Wait("wait for the program", l.sync[1])
	l.rest = p.Late("mount")
	return l, nil
}

// Keep are the descriptors that pid 1 has of its launcher.
func (l *Launch) Keep() []int { return []int{l.sync[1], l.rootFD, l.procFD} }

// Number is one more than the highest descriptor of those that pid 1 needs.
func (l *Launch) Number() int { return max(l.sync[1], l.rootFD, l.procFD) + 1 }

// Build adds the rest but for what needs the user. The launcher's other
// descriptors must have been open when pid 1 was started.
func (l *Launch) Build(spec Spec) error {
	l.spec = spec
	l.isEarly = !safepath.Openat2Refused() && spec.Root.Own("/etc/passwd", "/etc/group")
	spec.Root.WorkingDir = spec.WorkingDir
	l.steps()
	if err := l.rest.Seal(); err != nil {
		return fmt.Errorf("prepare the container: %w", err)
	}
	return nil
}

// Go lets pid 1 begin with what was built. ErrGone says that it is no more.
func (l *Launch) Go() error {
	if _, err := l.ours.Write([]byte{1}); err != nil {
		return fmt.Errorf("let pid 1 go on: %w: %w", fdpass.ErrGone, err)
	}
	return nil
}

// reserve takes a descriptor number that the child may replace.
func reserve() (int, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /: %w", err)
	}
	return fd, nil
}

// Close gives back what Build took. A started process keeps its copies.
func (l *Launch) Close() {
	if l.ours != nil {
		_ = l.ours.Close()
	}
	for _, fd := range []*int{&l.sync[1], &l.rootFD, &l.procFD} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	if l.prog != nil {
		l.prog.Close()
	}
}

// Command is the name of what is executed in the end.
func (l *Launch) Command() string { return l.spec.Args[0] }

// Ours is the launcher's end of what pid 1 waits for. Who forks pid 1 in
// between closes it first.
func (l *Launch) Ours() int { return l.sync[0] }

// Program is the list of steps.
func (l *Launch) Program() *raw.Program { return l.prog }

// steps is pid 1 up to the last thing that needs no knowledge of the user.
func (l *Launch) steps() {
	p, s := l.rest.Part(), &l.spec
	s.Root.Mount(p)
	if l.early() {
		l.sendRoot(p)
	}
	l.cloneInit(p)
	l.openProc(p)
	s.Root.Enter(p)
	s.Root.Populate(p)
	l.terminal(p)
	s.Root.Mask(p)
	s.Root.Leave(p)
	if !l.early() {
		l.sendRoot(p)
	}
	s.Root.EnterWorkingDir(p)
	l.closeRest(p)
	p.Call("set the hostname", unix.SYS_SETHOSTNAME, s.Hostname, len(s.Hostname))
	if s.Loopback {
		loopback(p)
	}
	p.Wait("wait for the user", l.sync[1])
	l.late = p.Late("go on as the user")
}

// lateSteps is the rest, once the user is known.
func (l *Launch) lateSteps(u confine.User) {
	p, s := l.late.Part(), &l.spec
	env := entry.WithHome(s.Env, u.Home)
	argv, envp := p.Strings(s.Args), p.Strings(env)
	if u.UID != 0 {
		entry.GiveStreams(p, u)
	}
	confine.Confinement{
		User:      u,
		Caps:      s.Caps,
		Filter:    s.Filter,
		OwnUserns: l.begun.SingleID && (u.UID != 0 || u.GID != 0),
		Proc:      l.procFD,
	}.Steps(p)
	if u.UID != 0 || u.GID != 0 {
		p.KeepDumpable(l.prog)
	}
	if s.Init != nil {
		l.execInit(p, envp)
		return
	}
	for _, candidate := range entry.Candidates(s.Args[0], s.WorkingDir, env) {
		p.Exec(entry.StepExec, candidate, argv, envp)
	}
	p.Fail(entry.StepExec)
}

// StepNamespaces is the name of the step that makes the container's namespaces.
const StepNamespaces = "make namespaces"

// early tells whether the user is looked up while pid 1 still mounts. Then the
// lookup keeps to the root's own mount: what is mounted there meanwhile is in
// part the host's. A passwd file may come with a mount of the user's, and
// where openat2(2) is refused no lookup can keep to a mount: they wait.
func (l *Launch) early() bool { return l.isEarly }

// sendRoot sends a descriptor of the mounted root to the launcher, in which
// it looks the user up while pid 1 goes on.
func (l *Launch) sendRoot(p *raw.Program) {
	fd := p.Call("open the root", unix.SYS_OPENAT, unix.AT_FDCWD, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Save()
	p.Call("place the root's descriptor", unix.SYS_DUP3, fd, l.rootFD, unix.O_CLOEXEC)
	entry.SendFD(p, "send the root", l.sync[1], l.rootFD)
	p.Call("close the root's descriptor", unix.SYS_CLOSE, fd)
	// The copy stays: its number must not become another descriptor's, as
	// terminal uses it again. It ends with execve.
}

func loopback(p *raw.Program) {
	// struct ifreq { char name[16]; short flags; ... }, 40 bytes
	var req [40]byte
	copy(req[:], "lo")
	req[16] = unix.IFF_UP | unix.IFF_RUNNING
	fd := p.Call("open a socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0).Save()
	p.Call("bring lo up", unix.SYS_IOCTL, fd, unix.SIOCSIFFLAGS, req[:])
	p.Call("close the socket", unix.SYS_CLOSE, fd)
}

// openProc keeps the host's /proc at hand, in which the maps of another user
// namespace can be written where the container's own /proc is read-only.
func (l *Launch) openProc(p *raw.Program) {
	if l.procFD < 0 {
		return
	}
	fd := p.Call("open the host's /proc", unix.SYS_OPENAT, unix.AT_FDCWD, "/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Save()
	p.Call("place the host's /proc", unix.SYS_DUP3, fd, l.procFD, unix.O_CLOEXEC)
	p.Call("close the host's /proc", unix.SYS_CLOSE, fd)
}

// closeRest closes what this process has of the launcher's and of the host's,
// while nothing of the image was executed yet.
func (l *Launch) closeRest(p *raw.Program) {
	keep := []int{l.sync[1], l.procFD}
	if l.spec.Init != nil {
		keep = append(keep, l.spec.Init.FD)
	}
	p.CloseAllBut(keep...)
}

// Finish receives the root, looks the user up in it and sends the rest. The
// launcher must have been started. An error leaves pid 1 waiting: Close, and
// it ends.
func (l *Launch) Finish() error {
	_ = unix.Close(l.sync[1])
	l.sync[1] = -1
	root, err := fdpass.Receive(l.ours, "root")
	if err != nil {
		return err
	}
	defer root.Close()
	u, err := confine.LookupUser(root, l.spec.User, l.openInRoot)
	if err != nil {
		return err
	}
	l.lateSteps(u)
	if err := l.late.Seal(); err != nil {
		return hint.Wrap(fmt.Errorf("prepare the entrypoint: %w", err), "its arguments and environment may be too long")
	}
	if _, err := l.ours.Write([]byte{1}); err != nil {
		return fmt.Errorf("%w: %w", fdpass.ErrGone, err)
	}
	return nil
}

func (l *Launch) openInRoot(root *os.File, unsafePath string) (*os.File, error) {
	in := safepath.RootAt(root)
	if l.early() {
		in.OneMount()
	}
	return in.Open(unsafePath, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}
