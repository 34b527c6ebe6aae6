package rootfs

import (
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// Stack is an overlay besides the root's own, of which a Bind shows a part.
type Stack struct {
	// Dir is the mount point, an empty directory of the host.
	Dir string
	// Lowers, Upper and Work are as of Root.
	Lowers      []Dir
	Upper, Work Dir
}

func (s Stack) mount(p *raw.Program) {
	placeDirs(p, append([]Dir{s.Upper, s.Work}, s.Lowers...))
	p.Call("enter "+fdDir, unix.SYS_CHDIR, fdDir)
	p.Call(StepOverlay, unix.SYS_MOUNT, "overlay", s.Dir, "overlay", 0, overlayOptions(s.Lowers, s.Upper, s.Work)+",volatile")
}

// File is a file in memory that is seen inside, read-only.
type File struct {
	Target  string // absolute
	Content []byte
	Mode    uint32
	UID     uint32
	GID     uint32
	// Owned says that UID and GID exist in the user namespace.
	Owned bool
}

// file adds one: it is written to the new /dev, mounted where it belongs and
// loses the name it had there, as those of /etc.
func (r *Root) file(p *raw.Program, f File, n int) {
	dir, base := path.Split(f.Target)
	dir = path.Clean(dir)
	source := "/dev/.file" + strconv.Itoa(n)
	p.Call("make "+source, unix.SYS_OPENAT, unix.AT_FDCWD, source, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600).SaveTo(r.fd)
	if len(f.Content) > 0 {
		p.Call("write "+f.Target, unix.SYS_WRITE, r.fd, f.Content, len(f.Content))
	}
	if f.Owned {
		p.Call("change the owner of "+f.Target, unix.SYS_FCHOWN, r.fd, int(f.UID), int(f.GID))
	}
	p.Call("change the mode of "+f.Target, unix.SYS_FCHMOD, r.fd, int(f.Mode))
	p.Call("close "+f.Target, unix.SYS_CLOSE, r.fd)
	r.mkdirAll(p, dir)
	r.make(p, f.Target, false)
	if dir != "/" {
		r.chdir(p, dir)
	}
	p.Call("mount "+f.Target, unix.SYS_MOUNT, source, base, "", unix.MS_BIND, 0)
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID
	p.Call("make "+f.Target+" read-only", unix.SYS_MOUNT, "", base, "", flags, 0)
	p.Call("enter /", unix.SYS_CHDIR, "/")
	p.Call("take away "+source, unix.SYS_UNLINKAT, unix.AT_FDCWD, source, 0)
}
