package safepath

import (
	"errors"
	"os"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// maxLinks is the kernel's bound on the symlinks of one lookup, MAXSYMLINKS.
const maxLinks = 40

// openWalking is Open without openat2(2).
func (r *Root) openWalking(unsafePath string, flags int, mode uint32) (*os.File, error) {
	fail := func(err error) (*os.File, error) {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, &os.PathError{Op: "open in root", Path: unsafePath, Err: err}
	}
	if unsafePath == "" {
		return fail(unix.ENOENT)
	}
	if strings.IndexByte(unsafePath, 0) >= 0 {
		return fail(unix.EINVAL)
	}
	here := unsafePath
	for range maxLinks {
		parent, base := split(here)
		dir, err := r.walkTo(parent)
		if err != nil {
			return fail(err)
		}
		if strings.HasSuffix(here, "/") {
			flags |= unix.O_DIRECTORY // split dropped the slash
		}
		fd, err := openat(dir, base, flags|unix.O_NOFOLLOW, mode)
		if flags&unix.O_NOFOLLOW != 0 || !mayBeLink(dir, base, flags, err) {
			_ = dir.Close()
			if err != nil {
				return fail(err)
			}
			return os.NewFile(uintptr(fd), unsafePath), nil
		}
		if err == nil {
			_ = unix.Close(fd) // O_PATH opens the link itself
		}
		target, err := readlinkat(dir, base)
		_ = dir.Close()
		if err != nil {
			return fail(err)
		}
		// A slash at the end asks for a directory, also of the link's target.
		if strings.HasSuffix(here, "/") {
			target += "/"
		}
		here = target
		if !strings.HasPrefix(target, "/") {
			here = parent + "/" + target
		}
	}
	return fail(unix.ELOOP)
}

// mayBeLink says whether openat with O_NOFOLLOW met a symlink that Open has
// to follow: it answers ELOOP, ENOTDIR when O_DIRECTORY was asked for, EEXIST
// for O_EXCL, which doesn't follow, and with O_PATH it opens the link.
func mayBeLink(dir *os.File, base string, flags int, err error) bool {
	switch {
	case base == ".":
		return false
	case err == nil && flags&unix.O_PATH == 0:
		return false
	case err != nil && !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR):
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// walkTo opens a directory. The slash makes the kernel refuse what is none.
func (r *Root) walkTo(unsafePath string) (*os.File, error) {
	dir, err := pathrs.OpenatInRoot(r.dir, unsafePath+"/")
	if err != nil {
		return nil, err
	}
	return dir, nil
}

func openat(dir *os.File, base string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), base, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func readlinkat(dir *os.File, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
