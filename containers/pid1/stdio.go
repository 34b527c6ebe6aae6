package pid1

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nook/containers/entry"
	"nook/internal/raw"
)

// terminal adds either the standard streams or a terminal of the container's
// own devpts, which is /dev/console too.
func (l *Launch) terminal(p *raw.Program) {
	if l.spec.TTY < 0 {
		entry.Streams(p, l.spec.Stdio)
		return
	}
	entry.Terminal{Socket: l.spec.TTY, Spare: l.rootFD, Rows: l.spec.Rows, Cols: l.spec.Cols, Console: true}.Steps(p)
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
