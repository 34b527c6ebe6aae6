package rootfs

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// The x/sys constants are untyped ints where the kernel has them on both
// machines.
const (
	sysOpenTree     = uintptr(unix.SYS_OPEN_TREE)
	sysMoveMount    = uintptr(unix.SYS_MOVE_MOUNT)
	sysMountSetattr = uintptr(unix.SYS_MOUNT_SETATTR)
	mountAttrSize   = int(unsafe.Sizeof(unix.MountAttr{}))
)

func mountAttr(p *raw.Program, a unix.MountAttr) raw.Addr {
	return p.Words(uintptr(a.Attr_set), uintptr(a.Attr_clr), uintptr(a.Propagation), uintptr(a.Userns_fd))
}

// hiddenFiles and hiddenDirs are docker's masked paths (moby,
// oci/defaults.go, MaskedPaths).
func hiddenFiles() []string {
	return []string{
		"/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
	}
}

func hiddenDirs() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// readOnlyPaths are docker's (ReadonlyPaths, ibidem). As root they are what
// keeps host 0 from the host's sysctls: it passes their owner checks inside a
// user namespace too.
func readOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// Mask adds the hiding of what a container has no business with.
func (r *Root) Mask(p *raw.Program) {
	for _, path := range readOnlyPaths() {
		if !r.Exists(path) {
			continue
		}
		const attr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		r.either(p, true, func() {
			p.Call("open "+path, sysOpenTree, unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE).SaveTo(r.fd)
			r.setFlags(p, "make "+path+" read-only", unix.AT_RECURSIVE, attr)
			r.place(p, path)
		}, func() {
			// What is mounted below is read-only: it came with the host's tree.
			r.byMount(p, older{source: path, target: path, attr: attr, below: []mounted{}})
		})
	}
	for _, path := range hiddenFiles() {
		if !r.Exists(path) {
			continue
		}
		r.either(p, false, func() {
			p.Call("open /dev/null to hide "+path, sysOpenTree, unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC).SaveTo(r.fd)
			r.place(p, path)
		}, func() { r.byMount(p, older{source: "/dev/null", target: path}) })
	}
	var empty string // one read-only tmpfs, seen wherever a directory is hidden
	for _, path := range hiddenDirs() {
		switch {
		case !r.Exists(path):
		case empty == "":
			empty = path
			p.Call("hide "+path, unix.SYS_MOUNT, "tmpfs", path, "tmpfs", procFlags|unix.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
		default:
			p.Call("hide "+path, unix.SYS_MOUNT, empty, path, "", unix.MS_BIND, 0)
		}
	}
}
