// Package safepath opens paths that an image or a container chose. They are
// resolved as the kernel would resolve them after a chroot(2) to a directory
// that is given as a descriptor: an absolute path, a symlink or ".." never
// leads out of it.
//
//	root, err := safepath.OpenRoot(dir)
//	defer root.Close()
//	passwd, err := root.Open("etc/passwd", unix.O_RDONLY, 0)
//
// openat2(2) with RESOLVE_IN_ROOT does the work. Where it is refused (a kernel
// before 5.6 says ENOSYS, the seccomp filter of an outer container EPERM) the
// path is walked a component at a time by pathrs-lite, which is slower and
// needs /proc.
//
// It doesn't defend against one who moves directories of the root to places
// outside of it meanwhile, and a path that is checked here and then handed on
// as a string is not safe any more: work on the descriptor.
package safepath

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/probe"
)

// Root is a directory that paths are resolved beneath.
type Root struct {
	dir *os.File
	// walk says that openat2(2) is refused here.
	walk bool
	// resolve are more RESOLVE_* flags of openat2(2).
	resolve uint64
}

// OneMount makes Open refuse a path that leads to another mount, with EXDEV.
// While a process pivots its root, the tree that it leaves is mounted upon the
// new one, and ".." leads into it. It needs openat2(2).
func (r *Root) OneMount() *Root {
	r.resolve |= unix.RESOLVE_NO_XDEV
	return r
}

// OpenRoot opens dir, a path of our own choice, as a root.
func OpenRoot(dir string) (*Root, error) {
	return openRoot(dir, Openat2Refused())
}

func openRoot(dir string, walk bool) (*Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	return &Root{dir: f, walk: walk}, nil
}

// Openat2Refused tries the call on a directory that is always there. Only a
// refusal of the call itself counts.
func Openat2Refused() bool {
	return openat2Question.Ask(func() bool {
		fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == nil {
			_ = unix.Close(fd)
		}
		return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)
	})
}

var openat2Question probe.Question

// Close closes the root's descriptor. Files opened beneath it stay open.
func (r *Root) Close() error { return r.dir.Close() }

// File is the root directory itself, opened with O_PATH. It is closed by
// Close.
func (r *Root) File() *os.File { return r.dir }

// Open is openat(2) in the root: flags and mode have its meaning, and
// O_CLOEXEC is always set. The last component is followed if it is a symlink,
// unless flags has O_NOFOLLOW. The error is an *os.PathError with the errno.
func (r *Root) Open(unsafePath string, flags int, mode uint32) (*os.File, error) {
	flags |= unix.O_CLOEXEC
	if flags&unix.O_CREAT == 0 && flags&unix.O_TMPFILE != unix.O_TMPFILE {
		// openat2 answers EINVAL to a mode without a use, open ignores it.
		mode = 0
	}
	if r.walk {
		return r.openWalking(unsafePath, flags, mode)
	}
	how := unix.OpenHow{
		Flags:   uint64(flags),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | r.resolve,
	}
	fd, err := openat2(int(r.dir.Fd()), unsafePath, &how)
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: unsafePath, Err: err}
	}
	return os.NewFile(uintptr(fd), unsafePath), nil
}

// openat2 repeats what a rename or a mount anywhere on the machine made the
// kernel give up (EAGAIN, or EXDEV from its last check). One who renames
// without end must not hold us for ever, hence the bound.
func openat2(dir int, unsafePath string, how *unix.OpenHow) (int, error) {
	const tries = 128
	for i := 0; ; i++ {
		fd, err := unix.Openat2(dir, unsafePath, how)
		again := errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINTR)
		if !again || i == tries {
			return fd, err
		}
	}
}

// OpenParent opens the directory that unsafePath's last component is in, with
// O_PATH, and gives that component, which is not followed and need not exist.
// When the path ends in "/", "." or "..", so that it names a directory and no
// entry in one, the directory itself is opened and base is ".".
func (r *Root) OpenParent(unsafePath string) (dir *os.File, base string, err error) {
	if unsafePath == "" {
		return nil, "", &os.PathError{Op: "open parent", Path: unsafePath, Err: unix.ENOENT}
	}
	parent, base := split(unsafePath)
	dir, err = r.Open(parent, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, "", err
	}
	return dir, base, nil
}

// split does not clean the path: "a/.." is not "." where a is a symlink.
func split(unsafePath string) (parent, base string) {
	trimmed := strings.TrimRight(unsafePath, "/")
	parent, base = path.Split(trimmed)
	switch base {
	case "", ".", "..":
		return unsafePath, "."
	}
	if parent == "" {
		parent = "."
	}
	return parent, base
}
