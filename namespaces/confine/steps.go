package confine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// Confinement is what the entrypoint may do.
type Confinement struct {
	User User
	// Caps are the capabilities of a container's root, and the most that any
	// process of the container can ever get.
	Caps Caps
	// OwnUserns runs the entrypoint in a user namespace below the container's,
	// whose only id is User: the way to be another user where a single id
	// exists.
	OwnUserns bool
	// Proc is a descriptor of a /proc that can be written to, for OwnUserns:
	// the container's own may be read-only. The steps close it; 0 or less is
	// none.
	Proc int
	// Filter is the seccomp filter.
	Filter []unix.SockFilter
	// NoNewPrivs as docker's --security-opt no-new-privileges.
	NoNewPrivs bool
}

// Steps adds the confinement of the process that then becomes the entrypoint.
// Nothing that needs a capability can stand after it. The order is what the
// kernel asks for: a filter without no_new_privs needs CAP_SYS_ADMIN in the
// process's own user namespace; dropping from the bounding set needs
// CAP_SETPCAP; changing ids drops the rest of what isn't root's.
func (c Confinement) Steps(p *raw.Program) {
	c.keyring(p)
	if c.OwnUserns {
		c.userns(p)
	}
	if c.Proc > 0 {
		p.Call("close the host's /proc", unix.SYS_CLOSE, c.Proc)
	}
	if c.NoNewPrivs {
		p.Call("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	c.seccomp(p)
	for bit := range Cap(highestCap) {
		if !c.Caps.Has(bit) {
			p.Call("drop a capability from the bounding set", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, int(bit), 0, 0, 0).Ignore(unix.EINVAL)
		}
	}
	p.Call("clear the ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0).Ignore(unix.EINVAL)
	if !c.OwnUserns {
		c.ids(p)
	}
	if c.User.UID == 0 {
		capset(p, c.Caps)
	} else {
		capset(p, 0)
	}
}

// keyring leaves the caller's session keyring: keys of the host's session are
// not for the container (keyrings(7)). The call may be refused by an outer
// sandbox or by the user's quota of keys; the filter keeps keyctl(2) from the
// container anyway.
func (c Confinement) keyring(p *raw.Program) {
	p.Call("join a new session keyring", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0).IgnoreAll()
}

// highestCap is one more than the last capability that a kernel can have
// (struct __user_cap_data_struct, twice 32 bits); one that has fewer answers
// EINVAL.
const highestCap = 64

func mapLine(id uint32) string { return fmt.Sprintf("%d 0 1", id) }

// userns maps the one id that exists to another: user_namespaces(7) allows a
// process to write a map of its own id when setgroups is denied.
func (c Confinement) userns(p *raw.Program) {
	p.Call("make a user namespace for the user", unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
	dir, prefix := unix.AT_FDCWD, "/proc/self/"
	if c.Proc > 0 {
		dir, prefix = c.Proc, "self/"
	}
	write := func(file, text string) {
		fd := p.Call("open "+file, unix.SYS_OPENAT, dir, prefix+file, unix.O_WRONLY|unix.O_CLOEXEC, 0).Save()
		p.Call("write "+file, unix.SYS_WRITE, fd, text, len(text))
		p.Call("close "+file, unix.SYS_CLOSE, fd)
	}
	write("setgroups", "deny")
	write("uid_map", mapLine(c.User.UID))
	write("gid_map", mapLine(c.User.GID))
}

func (c Confinement) ids(p *raw.Program) {
	groups := p.Words32(c.User.Groups...)
	p.Call("set the groups", unix.SYS_SETGROUPS, len(c.User.Groups), groups)
	gid, uid := uintptr(c.User.GID), uintptr(c.User.UID)
	p.Call("set the group", unix.SYS_SETRESGID, gid, gid, gid)
	p.Call("set the user", unix.SYS_SETRESUID, uid, uid, uid)
}

func (c Confinement) seccomp(p *raw.Program) {
	if len(c.Filter) == 0 {
		return
	}
	size := len(c.Filter) * int(unsafe.Sizeof(c.Filter[0]))
	code := p.Bytes(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(c.Filter))), size))
	// struct sock_fprog { unsigned short len; struct sock_filter *filter; }
	fprog := p.Words(uintptr(len(c.Filter)), uintptr(code))
	p.Call("load the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, fprog)
}

// capset sets permitted and effective to caps and empties the inheritable set
// (CVE-2022-24769).
func capset(p *raw.Program, caps Caps) {
	header := p.Words32(unix.LINUX_CAPABILITY_VERSION_3, 0)
	lo, hi := uint32(caps), uint32(caps>>32)
	data := p.Words32(lo, lo, 0, hi, hi, 0)
	p.Call("set the capabilities", unix.SYS_CAPSET, header, data)
}
