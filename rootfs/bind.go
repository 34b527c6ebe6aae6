package rootfs

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/internal/safepath"
)

// Bind is a file or directory of the host that is seen inside.
type Bind struct {
	// Source is absolute and free of symlinks: one that has become a symlink
	// since is refused (ELOOP), where openat2(2) is there.
	Source string
	// Subpath is below Source, and resolved in it whatever symlinks a container
	// may have put there. It needs Descriptors.
	Subpath string
	// Target is absolute, in the container.
	Target string
	// Dir says that the source is a directory; of a Subpath pid 1 finds out.
	Dir bool
	// ReadOnly is recursive (mount_setattr(2), Linux 5.12) but with
	// WritableBelow, which leaves what is mounted below the source as it is.
	ReadOnly, WritableBelow bool
	// NoRecurse leaves out the mounts below the source. The kernel refuses it
	// (EINVAL) where there are some that another user namespace made.
	NoRecurse bool
	// Slave: what the host mounts and unmounts below the source later is seen
	// inside, where the host shares the mount (mount_namespaces(7)). The other way
	// round a user namespace doesn't allow.
	Slave bool
}

// Descriptors tells whether the source of a bind is opened, and what was opened
// is mounted: who changes its path meanwhile is too late.
func Descriptors() bool { return !safepath.Openat2Refused() && !openTreeRefused() }

// bind adds a bind. The source is opened before anything is made in the root,
// and by its descriptor it is mounted.
func (r *Root) bind(p *raw.Program, b Bind) {
	byFD := !r.noOpenat2 && !r.noNewMounts && Descriptors()
	if byFD {
		r.openSource(p, b)
	}
	r.bindTarget(p, b)
	clone := func() {
		flags := unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC
		if !b.NoRecurse {
			flags |= unix.AT_RECURSIVE
		}
		if byFD {
			p.Call(b.cloneName(), sysOpenTree, r.src, "", flags|unix.AT_EMPTY_PATH).SaveTo(r.fd)
		} else {
			p.Call(b.cloneName(), sysOpenTree, r.old, b.relative(), flags).SaveTo(r.fd)
		}
		r.bindAttributes(p, b)
		r.open(p, "open "+b.Target, b.Target, unix.O_PATH, r.at)
		p.Call("mount on "+b.Target, sysMoveMount, r.fd, "", r.at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		p.Call("close "+b.Target, unix.SYS_CLOSE, r.at)
		p.Call("close the mount of "+b.Target, unix.SYS_CLOSE, r.fd)
	}
	if b.Subpath != "" {
		clone() // mount(2) knows no descriptors
	} else {
		r.either(p, b.ReadOnly, clone, func() { r.byMount(p, r.olderBind(b, byFD)) })
	}
	if byFD {
		p.Call("close the source of "+b.Target, unix.SYS_CLOSE, r.src)
	}
}

func (b Bind) cloneName() string {
	if b.NoRecurse {
		return "bind " + b.Source + " without what is mounted below it, which a user namespace may refuse"
	}
	return "open the source " + b.Source
}

// relative is the source as the descriptor of the host's root takes it.
func (b Bind) relative() string {
	if source := strings.TrimPrefix(b.Source, "/"); source != "" {
		return source
	}
	return "."
}

// openSource opens the source in r.src. RESOLVE_NO_SYMLINKS, as the command has
// resolved its path; a subpath is resolved as in a chroot(2) to the source.
func (r *Root) openSource(p *raw.Program, b Bind) {
	how := p.Words(unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	p.Call("open the source "+b.Source, unix.SYS_OPENAT2, r.old, b.relative(), how, unix.SizeofOpenHow).SaveTo(r.src)
	if b.Subpath == "" {
		return
	}
	how = p.Words(unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	p.Call("open the subpath "+b.Subpath+" for "+b.Target, unix.SYS_OPENAT2, r.src, b.Subpath, how, unix.SizeofOpenHow).SaveTo(r.fd)
	p.Call("close the source "+b.Source, unix.SYS_CLOSE, r.src)
	p.Call("move the subpath's descriptor", unix.SYS_FCNTL, r.fd, unix.F_DUPFD_CLOEXEC, 3).SaveTo(r.src)
	p.Call("close the subpath "+b.Subpath, unix.SYS_CLOSE, r.fd)
}

// bindTarget makes the place of a bind, where it is missing.
func (r *Root) bindTarget(p *raw.Program, b Bind) {
	switch {
	case b.Subpath != "":
		r.mkdirAll(p, path.Dir(b.Target))
		p.Or(func() {
			p.Call("see a directory in "+b.Subpath, unix.SYS_OPENAT, r.src, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).SaveTo(r.at)
			p.Call("close "+b.Subpath, unix.SYS_CLOSE, r.at)
			r.make(p, b.Target, true)
		}, func() { r.make(p, b.Target, false) })
	case b.Dir:
		r.mkdirAll(p, b.Target)
	default:
		r.mkdirAll(p, path.Dir(b.Target))
		r.make(p, b.Target, false)
	}
}

// bindAttributes adds the flags of the detached tree in r.fd: nothing of it is
// shared with the host, whose mounts ours are slaves of.
func (r *Root) bindAttributes(p *raw.Program, b Bind) {
	if r.noSetattr() {
		return // and it isn't read-only; that it is a slave is the lesser evil
	}
	var attr unix.MountAttr
	if b.ReadOnly && !b.WritableBelow {
		attr.Attr_set = unix.MOUNT_ATTR_RDONLY
	}
	if !b.Slave {
		attr.Propagation = unix.MS_PRIVATE
	}
	if attr != (unix.MountAttr{}) {
		p.Call("set the flags of "+b.Target, sysMountSetattr, r.fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, mountAttr(p, attr), mountAttrSize)
	}
	if b.ReadOnly && b.WritableBelow {
		r.setFlags(p, "make "+b.Target+" read-only", 0, unix.MOUNT_ATTR_RDONLY)
	}
}

// olderBind is a bind by mount(2).
func (r *Root) olderBind(b Bind, byFD bool) older {
	o := older{host: true, source: b.relative(), target: b.Target, shallow: b.NoRecurse}
	if byFD && b.Dir && b.Subpath == "" {
		o.host, o.open, o.source, o.path = false, true, ".", b.Source
	}
	if b.ReadOnly {
		o.attr = unix.MOUNT_ATTR_RDONLY
	}
	if b.NoRecurse {
		o.name = b.cloneName()
	}
	o.private = !b.Slave
	return o
}
