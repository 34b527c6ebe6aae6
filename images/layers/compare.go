package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// comparing walks two trees that should be the same. Times of directories are
// left out: those that no entry made have that of their making.
type comparing struct {
	ctx  context.Context //nolint:containedctx // of one call
	bufs [2][]byte
}

func (c *comparing) roots(ours, theirs string) (string, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	a, err := unix.Open(ours, flags, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: ours, Err: err}
	}
	defer unix.Close(a)
	b, err := unix.Open(theirs, flags, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: theirs, Err: err}
	}
	defer unix.Close(b)
	return c.dirs(a, b, ".")
}

func (c *comparing) dirs(a, b int, here string) (string, error) {
	if err := c.ctx.Err(); err != nil {
		return "", err
	}
	if fact, err := compareXattrs(a, b, here); fact != "" || err != nil {
		return fact, err
	}
	ours, err := treetar.Names(a)
	if err != nil {
		return "", err
	}
	theirs, err := treetar.Names(b)
	if err != nil {
		return "", err
	}
	extra := make(map[string]bool, len(ours))
	for _, name := range ours {
		extra[name] = true
	}
	for _, name := range sorted(theirs) {
		full := path.Join(here, name)
		if !extra[name] {
			return printable(full) + " is lost", nil
		}
		delete(extra, name)
		if fact, err := c.entry(a, b, name, full); fact != "" || err != nil {
			return fact, err
		}
	}
	for _, name := range sorted(ours) {
		if extra[name] {
			return printable(path.Join(here, name)) + " is not in its blob", nil
		}
	}
	return "", nil
}

func (c *comparing) entry(a, b int, name, full string) (string, error) {
	var ours, theirs unix.Stat_t
	for _, side := range []struct {
		fd int
		st *unix.Stat_t
	}{{a, &ours}, {b, &theirs}} {
		if err := unix.Fstatat(side.fd, name, side.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return "", &os.PathError{Op: "stat", Path: full, Err: err}
		}
	}
	kind := theirs.Mode & unix.S_IFMT
	switch {
	case ours.Mode&unix.S_IFMT != kind:
		return printable(full) + " is of another kind", nil
	case ours.Mode != theirs.Mode:
		return fmt.Sprintf("%s has mode %04o and should have %04o", printable(full), ours.Mode&0o7777, theirs.Mode&0o7777), nil
	case ours.Uid != theirs.Uid || ours.Gid != theirs.Gid:
		return fmt.Sprintf("%s has owner %d:%d and should have %d:%d", printable(full), ours.Uid, ours.Gid, theirs.Uid, theirs.Gid), nil
	case ours.Rdev != theirs.Rdev:
		return printable(full) + " is another device", nil
	}
	if kind == unix.S_IFDIR {
		return c.open(a, b, name, full, unix.O_DIRECTORY, c.dirs)
	}
	if ours.Nlink != theirs.Nlink {
		return fmt.Sprintf("%s has %d names and should have %d", printable(full), ours.Nlink, theirs.Nlink), nil
	}
	if kind != unix.S_IFCHR && ours.Mtim != theirs.Mtim { // of whiteouts nobody sets it
		return printable(full) + " has another time", nil
	}
	switch kind {
	case unix.S_IFREG:
		if ours.Size != theirs.Size {
			return fmt.Sprintf("%s has %d bytes and should have %d", printable(full), ours.Size, theirs.Size), nil
		}
		return c.open(a, b, name, full, 0, c.files)
	case unix.S_IFLNK:
		mine, err := readLink(&place{dirfd: a, name: name, stat: ours})
		if err != nil {
			return "", err
		}
		other, err := readLink(&place{dirfd: b, name: name, stat: theirs})
		if err != nil || mine == other {
			return "", err
		}
		return printable(full) + " leads elsewhere", nil
	}
	return "", nil
}

// open opens both and hands them on.
func (c *comparing) open(a, b int, name, full string, flag int, compare func(a, b int, full string) (string, error)) (string, error) {
	flag |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	ours, err := unix.Openat(a, name, flag, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: full, Err: err}
	}
	defer unix.Close(ours)
	theirs, err := unix.Openat(b, name, flag, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: full, Err: err}
	}
	defer unix.Close(theirs)
	return compare(ours, theirs, full)
}

// files compares content. One that the disk can't read is damaged.
func (c *comparing) files(a, b int, full string) (string, error) {
	if fact, err := compareXattrs(a, b, full); fact != "" || err != nil {
		return fact, err
	}
	for at := int64(0); ; {
		if err := c.ctx.Err(); err != nil {
			return "", err
		}
		n, err := pread(a, c.bufs[0], at)
		if err != nil {
			return printable(full) + " can't be read: " + err.Error(), nil //nolint:nilerr // this is what is wrong
		}
		m, err := pread(b, c.bufs[1], at)
		if err != nil {
			return "", &os.PathError{Op: "read", Path: full, Err: err}
		}
		if !bytes.Equal(c.bufs[0][:n], c.bufs[1][:m]) {
			return printable(full) + " has another content", nil
		}
		if n == 0 {
			return "", nil
		}
		at += int64(n)
	}
}

// pread reads until the buffer is full or the file ends.
func pread(fd int, buf []byte, at int64) (n int, err error) {
	for n < len(buf) {
		m, err := unix.Pread(fd, buf[n:], at+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

// compareXattrs looks at those of overlayfs, too.
func compareXattrs(a, b int, full string) (string, error) {
	// What the host's security module and integrity measurement set is theirs.
	all := func(name string) bool {
		return name != "security.selinux" && name != "security.ima" && name != "security.evm"
	}
	ours := make(map[string]string)
	if err := treetar.EachXattr(a, all, func(name, value string) { ours[name] = value }); err != nil {
		return "", err
	}
	fact := ""
	err := treetar.EachXattr(b, all, func(name, value string) {
		if mine, found := ours[name]; !found || mine != value {
			fact = printable(full) + " has not the attribute " + printable(name) + " of its blob"
		}
		delete(ours, name)
	})
	for name := range ours {
		fact = printable(full) + " has an attribute " + printable(name) + " that is not in its blob"
	}
	return fact, err
}
