package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// devices are bound from the host: nobody unprivileged can make device nodes.
// The mounts are read-only, which a device can be written to through and whose
// owner and mode can't be changed through: started by root, the container's
// root would pass the checks of the host's files.
func devices() []string {
	return []string{"null", "zero", "full", "random", "urandom", "tty"}
}

// links are what the runtime-spec asks of /dev ("Dev symbolic links").
func links() [][2]string {
	return [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
		{"/proc/kcore", "/dev/core"},
		{"pts/ptmx", "/dev/ptmx"},
	}
}

func (r *Root) dev(p *raw.Program) {
	p.Call("mount /dev", unix.SYS_MOUNT, "tmpfs", "/dev", "tmpfs", unix.MS_NOSUID|unix.MS_STRICTATIME, "mode=755,size=65536k")
	for _, name := range devices() {
		target := "/dev/" + name
		if name != "null" && !r.Exists(target) {
			continue // a poor host's /dev; an empty file in its place would lie
		}
		mkfile(p, target)
		r.either(p, true, func() {
			p.Call("open the host's "+target, sysOpenTree, r.old, target[1:], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).SaveTo(r.fd)
			r.setFlags(p, "make "+target+" read-only", 0, unix.MOUNT_ATTR_RDONLY)
			r.place(p, target)
		}, func() {
			r.byMount(p, older{host: true, source: target[1:], target: target, shallow: true, attr: unix.MOUNT_ATTR_RDONLY})
		})
	}
	for _, l := range links() {
		p.Call("link "+l[1], unix.SYS_SYMLINKAT, l[0], unix.AT_FDCWD, l[1])
	}
	for _, dir := range []string{"/dev/pts", "/dev/shm", "/dev/mqueue"} {
		p.Call("make "+dir, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o755)
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	if r.TTYGroup >= 0 {
		pts += fmt.Sprintf(",gid=%d", r.TTYGroup)
	}
	p.Call("mount /dev/pts", unix.SYS_MOUNT, "devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, pts)
	p.Call("mount /dev/shm", unix.SYS_MOUNT, "shm", "/dev/shm", "tmpfs", procFlags, fmt.Sprintf("mode=1777,size=%d", r.ShmSize))
	// A kernel without POSIX message queues has no mqueue either.
	p.Call("mount /dev/mqueue", unix.SYS_MOUNT, "mqueue", "/dev/mqueue", "mqueue", procFlags, 0).Ignore(unix.ENODEV)
}

// mkdir adds a directory of the root that an image may lack.
func mkdir(p *raw.Program, dir string) {
	p.Call("make "+dir, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o755).Ignore(unix.EEXIST)
}

// mkfile adds an empty file as a mount point. mknod(2) makes one in one call.
func mkfile(p *raw.Program, file string) {
	p.Call("make "+file, unix.SYS_MKNODAT, unix.AT_FDCWD, file, unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
}

// Console adds /dev/console, a bind of the process's own terminal, which must
// be open as descriptor 0.
func Console(p *raw.Program) {
	mkfile(p, "/dev/console")
	p.Call("mount /dev/console", unix.SYS_MOUNT, "/proc/self/fd/0", "/dev/console", "", unix.MS_BIND, 0)
}
