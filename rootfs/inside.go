package rootfs

import (
	"path"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/internal/safepath"
)

// Paths inside of the container that an image or a user chose. The process's
// root is the container's, so that no symlink and no ".." leads out; what is
// left are proc's magic links, which openat2(2) does not follow here.

// plain tells a kernel or a filter without openat2(2). The order of Populate
// alone keeps magic links out of the way then.
func (r *Root) plain() bool { return r.noOpenat2 || safepath.Openat2Refused() }

// open adds the opening of a path to a register.
func (r *Root) open(p *raw.Program, name, unsafePath string, flags int, to raw.Reg) {
	flags |= unix.O_CLOEXEC
	if r.plain() {
		p.Call(name, unix.SYS_OPENAT, unix.AT_FDCWD, unsafePath, flags, 0).SaveTo(to)
		return
	}
	// struct open_how { u64 flags, mode, resolve; }
	how := p.Words(uintptr(flags), 0, unix.RESOLVE_NO_MAGICLINKS)
	p.Call(name, unix.SYS_OPENAT2, unix.AT_FDCWD, unsafePath, how, unix.SizeofOpenHow).SaveTo(to)
}

// chdir adds the change to a directory.
func (r *Root) chdir(p *raw.Program, unsafePath string) {
	r.open(p, "open "+unsafePath, unsafePath, unix.O_PATH|unix.O_DIRECTORY, r.at)
	p.Call("enter "+unsafePath, unix.SYS_FCHDIR, r.at)
	p.Call("close "+unsafePath, unix.SYS_CLOSE, r.at)
}

// make adds a directory or an empty file, unless something is there already:
// mkdir(2) and mknod(2) follow no link at the end of their path, and the way
// to it is opened first.
func (r *Root) make(p *raw.Program, unsafePath string, dir bool) {
	parent, base := path.Split(unsafePath)
	add := func(args ...any) {
		if dir {
			p.Call("make "+unsafePath, unix.SYS_MKDIRAT, append(args, 0o755)...).Ignore(unix.EEXIST)
			return
		}
		p.Call("make "+unsafePath, unix.SYS_MKNODAT, append(args, unix.S_IFREG|0o644, 0)...).Ignore(unix.EEXIST)
	}
	if parent == "/" {
		add(unix.AT_FDCWD, unsafePath)
		return
	}
	r.open(p, "open "+path.Clean(parent), parent, unix.O_PATH|unix.O_DIRECTORY, r.at)
	add(r.at, base)
	p.Call("close "+parent, unix.SYS_CLOSE, r.at)
}

// mkdirAll adds a directory and those above it, 0755 and owned by the
// container's root.
func (r *Root) mkdirAll(p *raw.Program, dir string) {
	for i := 1; i < len(dir); i++ {
		if dir[i] == '/' {
			r.make(p, dir[:i], true)
		}
	}
	if dir != "/" {
		r.make(p, dir, true)
	}
}

// workingDir makes WORKDIR where it's missing, as docker does, and opens it,
// while it is sure where its path leads.
func (r *Root) workingDir(p *raw.Program) {
	if r.WorkingDir == "" || r.WorkingDir == "/" {
		return
	}
	r.mkdirAll(p, r.WorkingDir)
	r.open(p, "enter the working directory "+r.WorkingDir, r.WorkingDir, unix.O_PATH|unix.O_DIRECTORY, r.wd)
}

// EnterWorkingDir adds the change to WorkingDir, after Leave.
func (r *Root) EnterWorkingDir(p *raw.Program) {
	if r.WorkingDir == "" || r.WorkingDir == "/" {
		return
	}
	name := "enter the working directory " + r.WorkingDir
	p.Call(name, unix.SYS_FCHDIR, r.wd)
	p.Call("close the working directory", unix.SYS_CLOSE, r.wd)
}
