package rootfs

import (
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"nook/internal/probe"
	"nook/internal/raw"
)

// Mounts by mount(2), for kernels and filters without the calls of Linux 5.2
// and 5.12: open_tree(2), move_mount(2), mount_setattr(2). Each of them is
// missing by itself somewhere. What mount(2) can't do is refused, never done
// by halves: it makes one mount read-only at a time, so a bind that is to be
// read-only has none below it.

// MountsUsed tells by which calls trees of the host are mounted: Use is
// "open_tree, mount_setattr" or "mount".
func MountsUsed() (use, why string) {
	var refused []string
	for _, c := range []struct {
		name    string
		refused bool
	}{{"open_tree", openTreeRefused()}, {"mount_setattr", setattrRefused()}} {
		if c.refused {
			refused = append(refused, c.name)
		}
	}
	if len(refused) == 0 {
		return "open_tree, mount_setattr", ""
	}
	return "mount", strings.Join(refused, " and ") + " refused: a kernel before 5.12, or a filter of the host"
}

// ClonesMounts tells whether a mount can be cloned and made read-only before
// it is seen anywhere.
func ClonesMounts() bool { return !openTreeRefused() && !setattrRefused() }

// unknownFlags are what the new calls look at first: the error is EINVAL where
// the call is there, whatever the caller may do.
const unknownFlags = uintptr(1 << 30)

var openTree, setattr probe.Question

func openTreeRefused() bool {
	return openTree.Ask(func() bool {
		_, _, e := unix.RawSyscall(sysOpenTree, ^uintptr(0), 0, unknownFlags)
		return e != unix.EINVAL
	})
}

func setattrRefused() bool {
	return setattr.Ask(func() bool {
		_, _, e := unix.RawSyscall6(sysMountSetattr, ^uintptr(0), 0, unknownFlags, 0, 0, 0)
		return e != unix.EINVAL
	})
}

func (r *Root) noSetattr() bool { return r.noNewMounts || setattrRefused() }

// either adds the steps by the new calls, and those by mount(2) for when one
// of them fails; where a probe told so beforehand, only the latter. setattr
// says that the new way needs mount_setattr(2).
func (r *Root) either(p *raw.Program, setattr bool, modern, older func()) {
	if r.noNewMounts || openTreeRefused() || setattr && setattrRefused() {
		older()
		return
	}
	p.Or(modern, older)
}

// older is a tree that mount(2) binds.
type older struct {
	host           bool // source is relative to the host's root
	open           bool // source is "." of the directory open in r.src, which is path
	path           string
	source, target string
	shallow        bool   // without what is mounted below it
	name           string // of the step; "": the usual one
	private        bool   // the host's mounts below it don't follow later
	attr           uint64 // MOUNT_ATTR_*, of which those of the first byte are MS_* too
	// below are the mounts of the host below the source, by their place in
	// the container, that get the attributes too.
	below []mounted
}

// mounted is a mount point with the flags that it has, which a user namespace
// must not take from it.
type mounted struct {
	target string
	flags  uintptr
}

// byMount adds the mount of a tree.
//
// A source of the host is reached from the working directory, which is outside
// of the root for as long; a target is an absolute path and can't leave it.
func (r *Root) byMount(p *raw.Program, o older) {
	flags := uintptr(unix.MS_BIND | unix.MS_REC)
	if o.shallow || o.attr != 0 && o.below == nil && r.noSetattr() {
		// The kernel refuses it (EINVAL) for a tree with mounts below it: they
		// were locked together when the user namespace got its copy.
		flags = unix.MS_BIND
	}
	switch {
	case o.open:
		p.Call("enter the source of "+o.target, unix.SYS_FCHDIR, r.src)
	case o.host:
		p.Call("enter the host's root", unix.SYS_FCHDIR, r.old)
	}
	name := "bind " + o.target
	if flags&unix.MS_REC == 0 && !o.shallow {
		name = "bind " + o.target + " read-only (mount_setattr(2) is refused here, so nothing may be mounted below it)"
	}
	if o.name != "" {
		name = o.name
	}
	p.Call(name, unix.SYS_MOUNT, o.source, o.target, "", flags, 0)
	if o.host || o.open {
		p.Call("enter /", unix.SYS_CHDIR, "/")
	}
	if o.private {
		p.Call("keep "+o.target+" to the container", unix.SYS_MOUNT, "", o.target, "", unix.MS_REC|unix.MS_PRIVATE, 0)
	}
	if o.attr == 0 {
		return
	}
	if r.noSetattr() {
		source := o.source
		switch {
		case o.host:
			source = "/" + source
		case o.open:
			source = o.path
		}
		r.remount(p, mounted{o.target, statFlags(source)}, o.attr)
		for _, m := range o.below {
			// One that another mount hides is no mount to mount(2), and nobody
			// else finds it.
			r.remount(p, m, o.attr).Ignore(unix.EINVAL, unix.ENOENT, unix.ENOTDIR)
		}
		return
	}
	recursive := unix.AT_RECURSIVE
	if o.shallow {
		recursive = 0
	}
	p.Call("make "+o.target+" read-only", sysMountSetattr, unix.AT_FDCWD, o.target, recursive,
		mountAttr(p, unix.MountAttr{Attr_set: o.attr}), mountAttrSize)
}

// remount adds flags to a mount.
func (r *Root) remount(p *raw.Program, m mounted, attr uint64) *raw.Step {
	return p.Call("make "+m.target+" read-only", unix.SYS_MOUNT, "", m.target, "",
		unix.MS_REMOUNT|unix.MS_BIND|uintptr(attr)|m.flags, 0)
}

// lockable are the flags that a mount keeps in a user namespace below the one
// where it was made (mount_namespaces(7)).
const lockable = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// statFlags are the flags of the mount that a tree of the host lies on;
// statfs(2) numbers them as mount(2) does.
func statFlags(path string) uintptr {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0
	}
	return uintptr(st.Flags) & lockable
}

// mountsBelow lists the host's mounts below a directory; nil when they can't
// be known.
func mountsBelow(dir string) []mounted {
	list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil
	}
	out := []mounted{}
	for _, m := range list {
		if m.Mountpoint == dir {
			continue
		}
		out = append(out, mounted{m.Mountpoint, optionFlags(m.Options)})
	}
	return out
}

func optionFlags(options string) (flags uintptr) {
	for o := range strings.SplitSeq(options, ",") {
		switch o {
		case "ro":
			flags |= unix.MS_RDONLY
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		case "noexec":
			flags |= unix.MS_NOEXEC
		}
	}
	return flags
}
