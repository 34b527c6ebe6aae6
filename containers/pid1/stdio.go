package pid1

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/rootfs"
)

// stdio adds the standard streams. For none it is the container's own
// /dev/null: one that was opened outside is a descriptor through which root
// changes the owner and the mode of the host's.
func (l *Launch) stdio(p *raw.Program) {
	for to, fd := range l.spec.Stdio {
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

// terminal adds either the standard streams or a terminal of the container's
// own devpts: its master goes to the monitor, its slave becomes 0, 1, 2, the
// controlling terminal and /dev/console.
func (l *Launch) terminal(p *raw.Program) {
	if l.spec.TTY < 0 {
		l.stdio(p)
		return
	}
	master := p.Call("open a terminal", unix.SYS_OPENAT, unix.AT_FDCWD, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0).Save()
	p.Call("unlock the terminal", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, p.Words32(0))
	slave := p.Call("open the terminal's other end", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY).Save()
	p.Call("take the terminal", unix.SYS_IOCTL, slave, unix.TIOCSCTTY, 0)
	if l.spec.Rows > 0 && l.spec.Cols > 0 {
		// struct winsize { rows, cols, x, y }, 16 bits each
		size := p.Words32(uint32(l.spec.Rows)|uint32(l.spec.Cols)<<16, 0)
		p.Call("set the terminal's size", unix.SYS_IOCTL, slave, unix.TIOCSWINSZ, size)
	}
	p.Call("place the terminal", unix.SYS_DUP3, master, l.rootFD, unix.O_CLOEXEC)
	sendFD(p, "send the terminal", l.spec.TTY, l.rootFD)
	for fd := range 3 {
		p.Call("place a standard stream", unix.SYS_DUP3, slave, fd, 0)
	}
	p.Call("close the terminal", unix.SYS_CLOSE, slave)
	p.Call("close the terminal's master", unix.SYS_CLOSE, master)
	rootfs.Console(p)
}

// cloneInit takes the reaper's executable from the host's tree, read-only:
// what runs in a container must not be a way to write to our own file
// (/proc/PID/exe, CVE-2019-5736).
func (l *Launch) cloneInit(p *raw.Program) {
	if l.spec.Init == nil || l.spec.Init.Path == "" {
		return
	}
	fd := p.Call("clone the reaper", unix.SYS_OPEN_TREE, unix.AT_FDCWD, l.spec.Init.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).Save()
	attr := p.Words(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, 0, 0, 0)
	p.Call("make the reaper read-only", unix.SYS_MOUNT_SETATTR, fd, "", unix.AT_EMPTY_PATH, attr, unix.MOUNT_ATTR_SIZE_VER0)
	p.Call("place the reaper", unix.SYS_DUP3, fd, l.spec.Init.FD, unix.O_CLOEXEC)
}

func (l *Launch) execInit(p *raw.Program, envp raw.Addr) {
	argv := p.Strings(append(append([]string{}, l.spec.Init.Argv...), l.spec.Args...))
	p.Or(func() {
		p.Call("exec the reaper", unix.SYS_EXECVEAT, l.spec.Init.FD, "", argv, envp, unix.AT_EMPTY_PATH)
	}, func() {
		// Without execveat(2), by the container's /proc.
		p.Call("exec the reaper", unix.SYS_EXECVE, fmt.Sprintf("/proc/self/fd/%d", l.spec.Init.FD), argv, envp)
	})
}
