// Package entry has the last steps of whoever becomes a program of a
// container: its standard streams or terminal, its environment, the candidates
// of PATH, and what an exec that was refused means. The container's first
// process (containers/pid1) and every later one (Join) take them.
package entry

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/raw"
	"nook/namespaces/confine"
	"nook/rootfs"
)

// StepExec is the name of the steps that execute the program.
const StepExec = "exec"

// None are the streams of who has none: the container's /dev/null.
func None() [3]int { return [3]int{-1, -1, -1} }

// Streams adds the standard streams. -1 is the container's own /dev/null: one
// that was opened outside is a descriptor through which root changes the owner
// and the mode of the host's.
func Streams(p *raw.Program, fds [3]int) {
	for to, fd := range fds {
		if fd < 0 {
			null := p.Call("open /dev/null", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0).Save()
			p.Call("place a standard stream", unix.SYS_DUP3, null, to, 0)
			p.Call("close /dev/null", unix.SYS_CLOSE, null)
			continue
		}
		if fd == to { // dup3(2) refuses it
			p.Call("keep a standard stream", unix.SYS_FCNTL, fd, unix.F_SETFD, 0)
			continue
		}
		p.Call("place a standard stream", unix.SYS_DUP3, fd, to, 0)
	}
}

// Terminal is one of the container's own devpts.
type Terminal struct {
	// Socket is where its master is sent (SOCK_SEQPACKET).
	Socket int
	// Spare is a number that the master may have meanwhile.
	Spare int
	// Rows and Cols are its size; 0 when it isn't known.
	Rows, Cols uint16
	// Console makes it /dev/console too.
	Console bool
}

// Steps adds the terminal: its master goes to the monitor, its slave becomes
// 0, 1, 2 and the controlling terminal.
func (t Terminal) Steps(p *raw.Program) {
	master := p.Call("open a terminal", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0).Save()
	p.Call("unlock the terminal", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, p.Words32(0))
	slave := p.Call("open the terminal's other end", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY).Save()
	p.Call("take the terminal", unix.SYS_IOCTL, slave, unix.TIOCSCTTY, 0)
	if t.Rows > 0 && t.Cols > 0 {
		// struct winsize { rows, cols, x, y }, 16 bits each
		size := p.Words32(uint32(t.Rows)|uint32(t.Cols)<<16, 0)
		p.Call("set the terminal's size", unix.SYS_IOCTL, slave, unix.TIOCSWINSZ, size)
	}
	p.Call("place the terminal", unix.SYS_DUP3, master, t.Spare, unix.O_CLOEXEC)
	SendFD(p, "send the terminal", t.Socket, t.Spare)
	for fd := range 3 {
		p.Call("place a standard stream", unix.SYS_DUP3, slave, fd, 0)
	}
	p.Call("close the terminal", unix.SYS_CLOSE, slave)
	p.Call("close the terminal's master", unix.SYS_CLOSE, master)
	if t.Console {
		rootfs.Console(p)
	}
}

// SendFD adds a sendmsg(2) of one byte with a descriptor (unix(7),
// SCM_RIGHTS). The number must be known beforehand: it stands in the message.
func SendFD(p *raw.Program, name string, sock, fd int) {
	control := p.Bytes(unix.UnixRights(fd))
	iov := p.Words(uintptr(p.Bytes([]byte{1})), 1)
	// struct msghdr { name, namelen, iov, iovlen, control, controllen, flags }
	msg := p.Words(0, 0, uintptr(iov), 1, uintptr(control), uintptr(unix.CmsgSpace(4)), 0)
	p.Call(name, unix.SYS_SENDMSG, sock, msg, unix.MSG_NOSIGNAL)
}

// GiveStreams makes the standard streams the user's, so that /dev/stdout can
// be opened again by name (runc, fixStdioPermissions). A stream that can't be
// given away, as a file of another's, stays as it is.
func GiveStreams(p *raw.Program, u confine.User) {
	for fd := range 3 {
		p.Call("give the user a standard stream", unix.SYS_FCHOWN, fd, uintptr(u.UID), ^uintptr(0)).IgnoreAll()
	}
}

// WithHome adds HOME where it isn't set, as docker does.
func WithHome(env []string, home string) []string {
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			return env
		}
	}
	return append(env[:len(env):len(env)], "HOME="+home)
}

// Candidates are the files that name may mean, in the order of execvp(3).
func Candidates(name, dir string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	if name == "" {
		return nil // not the directories of PATH
	}
	var search string
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	var out []string
	for d := range strings.SplitSeq(search, ":") {
		if d == "" {
			d = "."
		}
		if !path.IsAbs(d) {
			d = path.Join(dir, d)
		}
		out = append(out, path.Join(d, name))
	}
	return out
}

// ExplainExec turns the error of a StepExec into one with docker's exit code.
func ExplainExec(e *raw.Error, command string) error {
	exec := fmt.Errorf("exec %q: %w", command, e.Errno)
	switch {
	case e.Errno == raw.ErrInterpreter:
		return hint.WithCode(hint.Errorf("the file is there; the interpreter of its #! line or its dynamic loader isn't",
			"exec %q: its interpreter is missing: %w", command, unix.ENOENT), hint.ExitNotFound)
	case errors.Is(e, unix.ENOENT):
		advice := "is it in the image? see nook inspect for ENTRYPOINT and CMD"
		if filepath.Base(command) == command {
			exec = fmt.Errorf("exec %q: not found in PATH: %w", command, e.Errno)
		}
		return hint.WithCode(hint.Wrap(exec, advice), hint.ExitNotFound)
	case errors.Is(e, unix.EACCES):
		return hint.WithCode(hint.Wrap(exec, "it must be a file, executable for the container's user"), hint.ExitCannotRun)
	case errors.Is(e, unix.ENOEXEC):
		return hint.WithCode(hint.Wrap(exec, "it is no program of this machine's kind, or a script without a #! line"), hint.ExitCannotRun)
	}
	return hint.WithCode(exec, hint.ExitCannotRun)
}
