// Package rootfs builds the root file system of a container: an overlay of
// read-only layers below one writable directory, the kernel's file systems,
// devices, binds and masks.
//
//	root := rootfs.Root{Kind: rootfs.Overlay, Lowers: layers, Upper: upper, Work: work, Dir: dir}
//	root.Mount(p)    // the overlay, at Dir
//	root.Enter(p)    // chroot(2)
//	root.Populate(p) // /proc, /sys, /dev, binds, tmpfs
//	root.Mask(p)     // read-only and hidden paths
//	root.Leave(p)    // pivot_root(2), and the host's tree goes
//
// It adds steps to a program that pid 1 of the container runs (internal/raw);
// it mounts nothing itself. Every path that an image or a user chose for the
// inside is resolved after Enter, when the container's root is the process's
// root and no symlink leads out of it. Which ids exist and what pid 1 may do
// afterwards is not decided here.
package rootfs

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// Kind is how a container gets its own view of its image: the ladder of
// docs/design/nested.md, best first.
type Kind string

const (
	// Overlay: kernel overlayfs, the upper directory beside the record.
	Overlay Kind = "overlay"
	// OverlayTmpfs: kernel overlayfs with the upper directory in memory. For
	// containers that are removed with their end, where the data root's file
	// system can't carry an upper directory.
	OverlayTmpfs Kind = "overlay-tmpfs"
	// Copy: the layers' files copied to a directory of the container's own.
	Copy Kind = "copy"
)

// Root describes a container's root file system.
type Root struct {
	Kind Kind
	// Dir is the mount point, an absolute path of the host. For Copy it is
	// where the files are.
	Dir string
	// Lowers are the layers' directories, topmost first.
	Lowers []Dir
	// Upper and Work are overlayfs's; for OverlayTmpfs only their FD counts.
	Upper, Work Dir
	// UpperMode is the mode of / itself, for OverlayTmpfs.
	UpperMode uint32
	// UpperSize is how much the writable layer takes at most, in bytes, for
	// OverlayTmpfs; 0: half of the memory, as tmpfs(5) has it.
	UpperSize int64
	// Volatile leaves out all waiting for the disk (overlayfs "volatile").
	Volatile bool
	// ReadOnly makes the root read-only when all mount points are made.
	ReadOnly bool
	// OwnNet says that the network namespace is the container's own, which
	// mounting sysfs needs.
	OwnNet bool
	// CgroupV2 says that /sys/fs/cgroup is to be a cgroup2 of our own view.
	CgroupV2 bool
	// TTYGroup is the group of terminals, -1 where it isn't mapped.
	TTYGroup int
	// ShmSize is the size of /dev/shm in bytes.
	ShmSize int64
	Binds   []Bind
	Tmpfs   []Tmpfs
	Secrets []Secret
	// Stacks are mounted before the root, each on a directory of the host that
	// a bind shows. Files are in memory, each where it belongs.
	Stacks []Stack
	Files  []File
	// Etc are files of /etc that are the container's own, by name. They live
	// in memory and are made anew at each start.
	Etc map[string]string
	// WorkingDir is a directory of the container, made where it is missing.
	WorkingDir string
	// Exists tells what the host has, so that no step tries to mask what
	// isn't there.
	Exists func(path string) bool

	old, dir, fd, at, wd, src raw.Reg
	secrets, elsewhere        raw.Reg // with Secrets

	noOpenat2   bool // for tests: as if openat2(2) were refused
	noNewMounts bool // for tests: as if open_tree(2) and its kin were
}

// Dir is a directory of the host.
type Dir struct {
	Path string
	// FD is the number of an open descriptor, which the steps replace.
	FD int
}

// Tmpfs is a file system in memory.
type Tmpfs struct {
	Target string
	Flags  uintptr // MS_*
	Data   string  // tmpfs(5) options
}

const (
	procFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	fdDir     = "/proc/self/fd"
)

// Mount adds the mount of the root at Dir and makes it the working directory.
//
// The layers are named by descriptor, relative to /proc/self/fd: mount(2)
// takes one page of options, in which 500 layers (the kernel's limit) would
// not fit by path, and a path with a colon or a comma could not stand in it
// at all. The descriptors must be opened in this mount namespace ("failed to
// clone upperpath", fs/overlayfs/super.c).
func (r *Root) Mount(p *raw.Program) {
	p.Call("make mounts slaves of the host's", unix.SYS_MOUNT, "", "/", "", unix.MS_REC|unix.MS_SLAVE, 0)
	for _, s := range r.Stacks {
		s.mount(p)
	}
	switch r.Kind {
	case Copy:
		p.Call("bind the root "+r.Dir, unix.SYS_MOUNT, r.Dir, r.Dir, "", unix.MS_BIND|unix.MS_REC, 0)
	case OverlayTmpfs:
		r.tmpfsUpper(p)
		r.overlay(p)
	default:
		r.overlay(p)
	}
	p.Call("enter the root", unix.SYS_CHDIR, r.Dir)
}

func (r *Root) tmpfsUpper(p *raw.Program) {
	options := "mode=700"
	if r.UpperSize > 0 {
		options += ",size=" + strconv.FormatInt(r.UpperSize, 10)
	}
	p.Call("mount a tmpfs for the writable layer", unix.SYS_MOUNT, "tmpfs", r.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	for name, to := range map[string]*Dir{"upper": &r.Upper, "work": &r.Work} {
		dir := path.Join(r.Dir, name)
		to.Path = dir
		p.Call("make "+name, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o700)
		if name == "upper" {
			p.Call("set the mode of /", unix.SYS_FCHMODAT, unix.AT_FDCWD, dir, int(r.UpperMode))
		}
	}
}

func (r *Root) overlay(p *raw.Program) {
	placeDirs(p, append([]Dir{r.Upper, r.Work}, r.Lowers...))
	p.Call("enter "+fdDir, unix.SYS_CHDIR, fdDir)
	p.Call(StepOverlay, unix.SYS_MOUNT, "overlay", r.Dir, "overlay", 0, r.options())
}

// placeDirs opens directories under the numbers that they have.
func placeDirs(p *raw.Program, dirs []Dir) {
	fd := p.Register()
	for _, d := range dirs {
		p.Call("open "+d.Path, unix.SYS_OPENAT, unix.AT_FDCWD, d.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).SaveTo(fd)
		p.Call("place "+d.Path, unix.SYS_DUP3, fd, d.FD, unix.O_CLOEXEC)
		p.Call("close "+d.Path, unix.SYS_CLOSE, fd)
	}
}

// StepOverlay is the name of the step that mounts the overlay, by which its
// error is known: the host refuses overlays, and Copy is the way out.
const StepOverlay = "mount the overlay"

func (r *Root) options() string {
	opts := overlayOptions(r.Lowers, r.Upper, r.Work)
	if r.Volatile || r.Kind == OverlayTmpfs {
		opts += ",volatile"
	}
	return opts
}

func overlayOptions(below []Dir, upper, work Dir) string {
	lowers := make([]string, len(below))
	for i, d := range below {
		lowers[i] = strconv.Itoa(d.FD)
	}
	// index=off: an upper directory may be used again by another mount.
	return "userxattr,index=off,lowerdir=" + strings.Join(lowers, ":") +
		",upperdir=" + strconv.Itoa(upper.FD) + ",workdir=" + strconv.Itoa(work.FD)
}

// Enter adds the change of root. The host's tree stays mounted, and reachable
// through a descriptor, until Leave: proc and sysfs can be mounted only while
// another instance is fully visible (fs/namespace.c, mount_too_revealing).
//
// It is a chroot(2) and not yet the pivot_root(2): pivot_root(".", ".") stacks
// the host's tree upon the new root, where ".." of / leads into it
// (fs/namei.c, follow_dotdot ends in step_into, which crosses mounts). A
// symlink of the image to ../tmp would then have mount points made in the
// host's /tmp.
func (r *Root) Enter(p *raw.Program) {
	r.old = p.Call("open the host's root", unix.SYS_OPENAT, unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Save()
	r.dir = p.Call("open the new root", unix.SYS_OPENAT, unix.AT_FDCWD, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).Save()
	r.fd, r.at, r.wd, r.src = p.Register(), p.Register(), p.Register(), p.Register()
	p.Call("chroot", unix.SYS_CHROOT, ".")
}

// StepPivot is the name of the step that changes the root of the mount
// namespace. The kernel's first root file system can't be left by it: EINVAL
// (pivot_root(2)).
const StepPivot = "pivot_root"

// Leave makes the container's root that of the mount namespace and detaches
// the host's tree, which pivot_root(".", ".") stacks upon it (pivot_root(2),
// NOTES). pivot_root wants to be called from the root that it replaces.
func (r *Root) Leave(p *raw.Program) {
	p.Call("return to the host's root", unix.SYS_FCHDIR, r.old)
	p.Call("chroot back", unix.SYS_CHROOT, ".")
	p.Call("enter the new root", unix.SYS_FCHDIR, r.dir)
	p.Call(StepPivot, unix.SYS_PIVOT_ROOT, ".", ".")
	p.Call("leave the host's root", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	p.Call("close the host's root", unix.SYS_CLOSE, r.old)
	p.Call("close the new root", unix.SYS_CLOSE, r.dir)
	p.Call("enter /", unix.SYS_CHDIR, "/")
	if r.ReadOnly {
		r.rootReadOnly(p)
	}
}

// Populate adds what a container finds in its root besides its files. The
// process's root must be the container's.
//
// The order keeps an image's symlinks harmless: /proc comes last, because as
// long as no proc is there, no path leads through /proc/self/fd to what this
// process has open of the host (CVE-2024-21626).
func (r *Root) Populate(p *raw.Program) {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		r.ordinary(p, dir)
	}
	r.dev(p)
	r.etc(p)
	r.prepareSecrets(p)
	r.mounts(p, "")
	r.placeSecrets(p)
	r.sys(p)
	r.mounts(p, "/sys")
	if r.plain() {
		r.workingDir(p)
	}
	r.proc(p)
	r.mounts(p, "/proc")
	if !r.plain() {
		r.workingDir(p)
	}
}

// ordinary adds a directory of the root that an image may lack, and refuses
// an image that has a link in its place: all that is made and masked below it
// would go elsewhere.
func (r *Root) ordinary(p *raw.Program, dir string) {
	mkdir(p, dir)
	p.Call("open "+dir+", which must be a directory", unix.SYS_OPENAT, unix.AT_FDCWD, dir,
		unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0).SaveTo(r.fd)
	p.Call("close "+dir, unix.SYS_CLOSE, r.fd)
}

// mounts adds the tmpfs and binds whose target lies below one of the kernel's
// trees, or, for "", below none: those that lie higher first, as one of them
// may be where another's place is.
func (r *Root) mounts(p *raw.Program, tree string) {
	if len(r.Binds)+len(r.Tmpfs)+len(r.Files) == 0 {
		return
	}
	type mount struct {
		depth int
		add   func()
	}
	var list []mount
	want := func(target string, add func()) {
		if treeOf(target) == tree {
			list = append(list, mount{strings.Count(target, "/"), add})
		}
	}
	for _, t := range r.Tmpfs {
		want(t.Target, func() { r.tmpfs(p, t) })
	}
	for _, b := range r.Binds {
		want(b.Target, func() { r.bind(p, b) })
	}
	for i, f := range r.Files {
		want(f.Target, func() { r.file(p, f, i) })
	}
	slices.SortStableFunc(list, func(a, b mount) int { return a.depth - b.depth })
	for _, m := range list {
		m.add()
	}
}

func treeOf(target string) string {
	for _, tree := range []string{"/proc", "/sys"} {
		if target == tree || strings.HasPrefix(target, tree+"/") {
			return tree
		}
	}
	return ""
}

func (r *Root) tmpfs(p *raw.Program, t Tmpfs) {
	r.mkdirAll(p, t.Target)
	r.chdir(p, t.Target)
	p.Call("mount a tmpfs on "+t.Target, unix.SYS_MOUNT, "tmpfs", ".", "tmpfs", t.Flags, t.Data)
	p.Call("enter /", unix.SYS_CHDIR, "/")
}

// etc adds the container's own files of /etc: they are written to /dev's
// tmpfs, mounted where they belong and then lose the name they had there. On
// disk they would cost three files to make and to remove at each start.
func (r *Root) etc(p *raw.Program) {
	if len(r.Etc) == 0 {
		return
	}
	mkdir(p, "/etc")
	r.chdir(p, "/etc")
	for _, name := range slices.Sorted(maps.Keys(r.Etc)) {
		// Nothing can be mounted on a file that has no name any more.
		if slices.ContainsFunc(r.Binds, func(b Bind) bool { return b.Target == "/etc/"+name }) ||
			slices.ContainsFunc(r.Secrets, func(s Secret) bool { return s.Target == "/etc/"+name }) {
			continue
		}
		content, source, target := r.Etc[name], "/dev/."+name, "/etc/"+name
		p.Call("make "+source, unix.SYS_OPENAT, unix.AT_FDCWD, source, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644).SaveTo(r.fd)
		p.Call("write "+target, unix.SYS_WRITE, r.fd, content, len(content))
		p.Call("close "+target, unix.SYS_CLOSE, r.fd)
		file := func() {
			p.Call("make "+target, unix.SYS_MKNODAT, unix.AT_FDCWD, name, unix.S_IFREG|0o644, 0).Ignore(unix.EEXIST)
		}
		mount := func() { p.Call("mount "+target, unix.SYS_MOUNT, source, name, "", unix.MS_BIND, 0) }
		file()
		// A link that leads nowhere, as resolv.conf has it where systemd-resolved
		// is installed, gives way to a file.
		p.Or(mount, func() {
			p.Call("remove "+target, unix.SYS_UNLINKAT, unix.AT_FDCWD, name, 0)
			file()
			mount()
		})
		p.Call("take away "+source, unix.SYS_UNLINKAT, unix.AT_FDCWD, source, 0)
	}
	p.Call("enter /", unix.SYS_CHDIR, "/")
}

// Skeleton makes the mount points of every container in a directory that
// serves as the lowest layer: an image that has them hides it, and one that
// lacks them needs no file of its own in each container's writable layer.
func Skeleton(dir string, etc []string) error {
	for _, d := range []string{"proc", "sys", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("make the skeleton: %w", err)
		}
	}
	for _, name := range etc {
		f, err := os.OpenFile(filepath.Join(dir, "etc", name), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("make the skeleton: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("make the skeleton: %w", err)
		}
	}
	return nil
}

func (r *Root) proc(p *raw.Program) {
	if !r.Exists("/proc/sys") {
		// The host's shows processes alone (subset=pid). A new instance would
		// show all, and what Mask is to cover can't be seen from here.
		r.hostTree(p, "proc", "/proc")
		return
	}
	p.Or(func() {
		p.Call("mount proc", unix.SYS_MOUNT, "proc", "/proc", "proc", procFlags, 0)
	}, func() {
		// A host that is a container itself masks parts of its /proc, and the
		// kernel then refuses a new instance: the host's, read-only.
		r.hostTree(p, "proc", "/proc")
	})
}

func (r *Root) sys(p *raw.Program) {
	if r.OwnNet {
		p.Or(func() {
			p.Call("mount sysfs", unix.SYS_MOUNT, "sysfs", "/sys", "sysfs", procFlags|unix.MS_RDONLY, 0)
		}, func() { r.hostTree(p, "sys", "/sys") })
	} else {
		r.hostTree(p, "sys", "/sys")
	}
	if r.CgroupV2 {
		p.Call("mount cgroup2", unix.SYS_MOUNT, "cgroup2", "/sys/fs/cgroup", "cgroup2", procFlags|unix.MS_RDONLY, 0).IgnoreAll()
	}
}

// hostTree binds a tree of the host with all that is mounted below it,
// read-only.
func (r *Root) hostTree(p *raw.Program, source, target string) {
	const attr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID
	r.either(p, true, func() {
		p.Call("open the host's /"+source, sysOpenTree, r.old, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE).SaveTo(r.fd)
		r.setFlags(p, "make the host's /"+source+" read-only", unix.AT_RECURSIVE, attr)
		r.place(p, target)
	}, func() {
		o := older{host: true, source: source, target: target, attr: attr}
		if r.noSetattr() {
			o.below = mountsBelow("/" + source)
		}
		r.byMount(p, o)
	})
}

// setFlags adds mount flags to the detached tree in r.fd.
func (r *Root) setFlags(p *raw.Program, name string, recursive int, flags uint64) {
	attr := unix.MountAttr{Attr_set: flags}
	p.Call(name, sysMountSetattr, r.fd, "", unix.AT_EMPTY_PATH|recursive, mountAttr(p, attr), mountAttrSize)
}

func (r *Root) rootReadOnly(p *raw.Program) {
	if !r.noSetattr() {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		p.Call("make the root read-only", sysMountSetattr, unix.AT_FDCWD, "/", 0, mountAttr(p, attr), mountAttrSize)
		return
	}
	root := mounted{target: "/"}
	if r.Kind == Copy {
		root.flags = statFlags(r.Dir)
	}
	r.remount(p, root, unix.MOUNT_ATTR_RDONLY)
}

// place mounts the detached tree in r.fd on target.
func (r *Root) place(p *raw.Program, target string) {
	p.Call("mount on "+target, sysMoveMount, r.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS)
	p.Call("close the mount of "+target, unix.SYS_CLOSE, r.fd)
}

// TryProc adds the mount of a new proc instance somewhere, to find out
// whether the host allows it. It needs new pid and mount namespaces.
func TryProc(p *raw.Program) {
	p.Call("mount proc", unix.SYS_MOUNT, "proc", "/proc", "proc", procFlags, 0)
}

// TrySysfs is TryProc for sysfs; it needs new network and mount namespaces.
func TrySysfs(p *raw.Program) {
	p.Call("mount sysfs", unix.SYS_MOUNT, "sysfs", "/sys", "sysfs", procFlags|unix.MS_RDONLY, 0)
}
