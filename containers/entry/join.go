package entry

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/internal/safepath"
	"nook/namespaces/confine"
)

// Join is one more process of a running container, as its monitor starts it.
// It is confined as the first one.
//
//	monitor -- clone --> joiner -- setns -- clone CLONE_PARENT|NEWPID's --> the process
//	                        |                                                  |
//	                        ends                                               execve
//
// A process enters a pid namespace by being born in it (setns(2)), so two are
// needed; CLONE_PARENT makes the monitor the parent of the second too, or its
// exit status would go to the container's first process.
type Join struct {
	// Pidfd is the container's first process. Below 0, Files are descriptors
	// of its namespaces (/proc/PID/ns/*) instead.
	Pidfd int
	Files []int
	// Namespaces are the CLONE_NEW* flags of those that are entered.
	Namespaces int

	Args       []string
	Env        []string
	User       confine.User
	WorkingDir string
	// Streams are descriptors for 0, 1 and 2; see the function. With a
	// Terminal they aren't used.
	Streams  [3]int
	Terminal *Terminal
	Caps     confine.Caps
	Filter   []unix.SockFilter
	// SingleID says that only id 0 exists in the user namespace; Proc is then
	// a descriptor of the host's /proc, otherwise -1.
	SingleID bool
	Proc     int
}

// StepWorkingDir is the name of the step that enters the working directory.
const StepWorkingDir = "enter the working directory"

// Program makes the joiner's steps. The pid of the process, as the monitor
// counts, stands in the memory that pid points to once the joiner ended.
func (j *Join) Program() (p *raw.Program, pid *int32) {
	size := raw.DefaultSize
	for _, list := range [][]string{j.Args, j.Env} {
		for _, s := range list {
			size += 2*len(s) + 64
		}
	}
	p = raw.New(size)
	inner := p.Part()
	j.steps(inner)
	if j.Pidfd >= 0 {
		p.Call("enter the container's namespaces", unix.SYS_SETNS, j.Pidfd, j.Namespaces|unix.CLONE_NEWPID)
	}
	for _, fd := range j.Files {
		p.Call("enter a namespace of the container", unix.SYS_SETNS, fd, 0)
	}
	word := p.Space(8)
	p.ForkTelling("fork into the container", unix.CLONE_PARENT|unix.CLONE_PARENT_SETTID, word, inner)
	p.Call("end", unix.SYS_EXIT_GROUP, 0)
	return p, p.Int32(word)
}

func (j *Join) steps(p *raw.Program) {
	// A monitor has a slack of its own; this is the kernel's default.
	p.Call("set the timer slack", unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, 50_000, 0, 0, 0)
	p.Call("begin a session", unix.SYS_SETSID)
	j.streams(p)
	if j.WorkingDir != "" {
		dir := j.open(p, StepWorkingDir, j.WorkingDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		p.Call(StepWorkingDir, unix.SYS_FCHDIR, dir)
		p.Call("close the working directory", unix.SYS_CLOSE, dir)
	}
	if j.User.UID != 0 {
		GiveStreams(p, j.User)
	}
	p.Call("set the umask", unix.SYS_UMASK, 0o022)
	env := WithHome(j.Env, j.User.Home)
	argv, envp := p.Strings(j.Args), p.Strings(env)
	confine.Confinement{
		User: j.User, Caps: j.Caps, Filter: j.Filter,
		OwnUserns: j.SingleID && (j.User.UID != 0 || j.User.GID != 0),
		Proc:      j.proc(),
	}.Steps(p)
	for _, candidate := range Candidates(j.Args[0], j.WorkingDir, env) {
		p.Exec(StepExec, candidate, argv, envp)
	}
	p.Fail(StepExec)
}

// streams takes what is needed of the monitor's descriptors and closes the
// others before any path is looked up: the container has had the time to make
// each of them a link to /proc/self/fd/N.
func (j *Join) streams(p *raw.Program) {
	if t := j.Terminal; t != nil {
		p.CloseAllBut(j.proc(), t.Socket, t.Spare)
		t.Steps(p)
		p.CloseAllBut(j.proc())
		return
	}
	for to, fd := range j.Streams {
		if fd >= 0 {
			p.Call("place a standard stream", unix.SYS_DUP3, fd, to, 0)
		}
	}
	p.CloseAllBut(j.proc())
	for to, fd := range j.Streams {
		if fd < 0 {
			null := j.open(p, "open /dev/null", "/dev/null", unix.O_RDWR|unix.O_CLOEXEC, unix.RESOLVE_NO_SYMLINKS)
			p.Call("place a standard stream", unix.SYS_DUP3, null, to, 0)
			p.Call("close /dev/null", unix.SYS_CLOSE, null)
		}
	}
}

// open adds the opening of a path of the container that goes through no
// descriptor of ours. Where openat2(2) is refused there is none left.
func (j *Join) open(p *raw.Program, name, path string, flags int, resolve uintptr) raw.Reg {
	if safepath.Openat2Refused() {
		return p.Call(name, unix.SYS_OPENAT, unix.AT_FDCWD, path, flags, 0).Save()
	}
	// struct open_how { flags, mode, resolve }
	how := p.Words(uintptr(flags), 0, resolve|unix.RESOLVE_NO_MAGICLINKS)
	return p.Call(name, unix.SYS_OPENAT2, unix.AT_FDCWD, path, how, unix.SizeofOpenHow).Save()
}

// proc is the host's /proc, or -1: then the container's own has to do.
func (j *Join) proc() int {
	if safepath.Openat2Refused() {
		return -1
	}
	return j.Proc
}

// Explain turns an error of the program into one with docker's exit code.
func (j *Join) Explain(e *raw.Error) error {
	switch e.Step {
	case StepExec:
		return ExplainExec(e, j.Args[0])
	case StepWorkingDir:
		return fmt.Errorf("working directory %q: %w", j.WorkingDir, e.Errno)
	}
	return fmt.Errorf("start a process in the container: %w", e)
}

// Namespaces are the CLONE_NEW* flags of what a container's first process
// makes for itself, by its --network: all but the user and the pid namespace,
// in which it is started.
func Namespaces(network string) int {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	if network != "host" {
		flags |= unix.CLONE_NEWNET
	}
	return flags
}

// NamespaceFiles are the names of the same in /proc/PID/ns, and of the pid
// namespace; the mount namespace is last.
func NamespaceFiles(flags int) []string {
	files := []string{"uts", "ipc", "cgroup"}
	if flags&unix.CLONE_NEWNET != 0 {
		files = append(files, "net")
	}
	return append(files, "pid", "mnt")
}
