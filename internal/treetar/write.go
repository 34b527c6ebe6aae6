package treetar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Writer writes files to a tar stream: PAX where the old format has no room,
// names sorted, nothing in it that differs from one time to the next.
type Writer struct {
	// Seconds cuts times to whole seconds, as image layers have them.
	Seconds bool
	// Latest, if not zero, stands for the times that are after it.
	Latest time.Time
	// Still says that nobody changes files while they are written.
	Still bool
	// Note is told what can't be in a tar stream; nil: nobody listens.
	Note func(text string)

	tar   *tar.Writer
	buf   []byte
	links map[inode]string
	bytes int64
	ahead *ahead // nil: all is read and written at once
}

// inode tells files apart.
type inode struct{ dev, ino uint64 }

const (
	// fileBuffer is what content is copied by.
	fileBuffer = 256 << 10
	// maxDepth is how deep a tree may nest: a process could make it without
	// end, and each level holds a descriptor.
	maxDepth = 1000
)

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{tar: tar.NewWriter(w), buf: make([]byte, fileBuffer), links: map[inode]string{}}
}

// Close writes the end of the archive. The writer below stays open.
func (w *Writer) Close() error {
	if err := w.settle(); err != nil {
		return err
	}
	return w.tar.Close()
}

// Bytes is the size of the files' content so far; after Ahead, once it is closed.
func (w *Writer) Bytes() int64 { return w.bytes }

func (w *Writer) note(format string, args ...any) {
	if w.Note != nil {
		w.Note(fmt.Sprintf(format, args...))
	}
}

// Tree writes what f is open on, with O_PATH or not, and all below it. Its
// entry is called name; "." is a directory without a name of its own. File
// systems of the kernel's below it, such as /proc, are left empty.
func (w *Writer) Tree(ctx context.Context, f *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("fstat %s: %w", name, err)
	}
	again := func(flags int) (int, error) {
		// A descriptor with O_PATH can't be read: the magic link opens the
		// very same file.
		fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), flags|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", name, err)
		}
		return fd, nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := again(unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return w.dir(ctx, fd, name, &st, 0)
	case unix.S_IFREG:
		fd, err := again(0)
		if err != nil {
			return err
		}
		return w.file(ctx, entry{fd: fd, name: name, stat: st, owner: Owner(&st)})
	case unix.S_IFLNK:
		target, err := readlinkat(int(f.Fd()), "")
		if err != nil {
			return fmt.Errorf("readlink %s: %w", name, err)
		}
		return w.header(w.base(name, &st, Owner(&st), target))
	}
	return w.special(name, &st, Owner(&st))
}

// dir writes a directory and what is in it. fd is its own.
func (w *Writer) dir(ctx context.Context, fd int, name string, st *unix.Stat_t, depth int) error {
	if depth == maxDepth {
		return fmt.Errorf("%s nests too deep: %w", name, unix.ENAMETOOLONG)
	}
	if err := w.Dir(fd, name, st, Owner(st)); err != nil {
		return err
	}
	names, err := Names(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.child(ctx, fd, base, path.Join(name, base), st.Dev, depth); err != nil {
			return err
		}
	}
	return nil
}

// child writes one entry of a directory. One that went away since the
// directory was read is none.
func (w *Writer) child(ctx context.Context, dirfd int, base, name string, dev uint64, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fstatat %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := w.Leaf(ctx, dirfd, base, name, &st, Owner(&st))
		if errors.Is(err, ErrReplaced) {
			return nil
		}
		return err
	}
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat %s: %w", name, err)
	}
	if st.Dev != dev && ofKernel(fd) {
		return w.Dir(fd, name, &st, Owner(&st))
	}
	return w.dir(ctx, fd, name, &st, depth+1)
}

// gone is for what was there a moment ago, or was something else.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENXIO)
}

// ofKernel tells a file system whose files are no files.
func ofKernel(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	const mqueue = 0x19800202
	switch st.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEVPTS_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, mqueue:
		return true
	}
	return false
}

// Owned is the owner that an entry gets.
type Owned struct{ UID, GID uint32 }

// Owner is the owner on disk.
func Owner(st *unix.Stat_t) Owned { return Owned{st.Uid, st.Gid} }

// Dir writes the entry of an open directory, without what is in it.
func (w *Writer) Dir(fd int, name string, st *unix.Stat_t, o Owned) error {
	h := w.base(name, st, o, "")
	if err := addXattrs(h, fd); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return w.header(h)
}

// Mark writes an empty file with no attributes at all, as whiteouts are.
func (w *Writer) Mark(name string) error {
	return w.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Format: tar.FormatPAX, ModTime: time.Unix(0, 0)})
}

// Empty writes the entry of a file or directory without content.
func (w *Writer) Empty(name string, st *unix.Stat_t) error {
	return w.header(w.base(name, st, Owner(st), ""))
}

// ErrReplaced says that a file is no more what it was when it was looked at.
var ErrReplaced = errors.New("it was replaced meanwhile")

// Leaf writes the entry of what is no directory, found as base in an open
// directory. A file with several names is written once; the others are hard
// links to the first.
func (w *Writer) Leaf(ctx context.Context, dirfd int, base, name string, st *unix.Stat_t, o Owned) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err := openFile(dirfd, base)
		if gone(err) {
			return fmt.Errorf("open %s: %w", name, ErrReplaced)
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", name, err)
		}
		return w.file(ctx, entry{fd: fd, name: name, stat: *st, owner: o})
	case unix.S_IFLNK:
		target, err := readlinkat(dirfd, base)
		if gone(err) || errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("readlinkat %s: %w", name, ErrReplaced)
		}
		if err != nil {
			return fmt.Errorf("readlinkat %s: %w", name, err)
		}
		return w.header(w.base(name, st, o, target))
	}
	return w.special(name, st, o)
}

// openFile opens what was a regular file: should it be a fifo by now, that must
// not wait for its writer. A file's access time is no matter of who packs it, and
// costs a write of its inode.
func openFile(dirfd int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, base, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // somebody else's file
		fd, err = unix.Openat(dirfd, base, flags, 0)
	}
	return fd, err
}

func (w *Writer) special(name string, st *unix.Stat_t, o Owned) error {
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		w.note("socket %s is left out: a tar stream can't hold it", name)
		return nil
	}
	return w.header(w.base(name, st, o, ""))
}

// file writes a regular file, and closes it.
func (w *Writer) file(ctx context.Context, e entry) error {
	if w.ahead != nil {
		return w.put(e)
	}
	defer unix.Close(e.fd)
	if err := w.describe(&e); err != nil {
		return err
	}
	return w.entry(ctx, &e)
}

// describe makes the header of an open file. The size is that of the beginning:
// what a process adds meanwhile is left out, what it cuts off is zeros.
func (w *Writer) describe(e *entry) error {
	if !w.Still {
		if err := unix.Fstat(e.fd, &e.stat); err != nil {
			return fmt.Errorf("fstat %s: %w", e.name, err)
		}
		if e.stat.Mode&unix.S_IFMT != unix.S_IFREG {
			return fmt.Errorf("open %s: %w", e.name, ErrReplaced)
		}
	}
	e.header = w.base(e.name, &e.stat, e.owner, "")
	if err := addXattrs(e.header, e.fd); err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	return nil
}

// entry writes one, as a hard link if its file was written before.
func (w *Writer) entry(ctx context.Context, e *entry) error {
	if e.header.Typeflag != tar.TypeReg {
		return w.write(e.header)
	}
	if e.stat.Nlink > 1 {
		id := inode{e.stat.Dev, e.stat.Ino}
		if first, ok := w.links[id]; ok {
			h := w.base(e.name, &e.stat, e.owner, first)
			h.Typeflag, h.Size = tar.TypeLink, 0
			return w.write(h)
		}
		w.links[id] = e.name
	}
	if err := w.write(e.header); err != nil {
		return err
	}
	w.bytes += e.header.Size
	if e.fd >= 0 {
		return w.content(ctx, e.fd, e.name, e.header.Size)
	}
	if _, err := w.tar.Write(e.bytes); err != nil {
		return fmt.Errorf("write %s: %w", e.name, err)
	}
	return nil
}

// content copies a file into the stream.
func (w *Writer) content(ctx context.Context, fd int, name string, size int64) error {
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := w.buf[:min(size-at, int64(len(w.buf)))]
		n, err := unix.Pread(fd, part, at)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("read %s: %w", name, err)
		case n == 0:
			clear(part)
			n = len(part)
		}
		if _, err := w.tar.Write(part[:n]); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		at += int64(n)
	}
	return nil
}

// base is the header that all kinds of files have.
func (w *Writer) base(name string, st *unix.Stat_t, o Owned, link string) *tar.Header {
	h := &tar.Header{
		Name: name, Linkname: link, Mode: int64(st.Mode & 0o7777), Uid: int(o.UID), Gid: int(o.GID),
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Format: tar.FormatPAX,
	}
	if w.Seconds {
		h.ModTime = time.Unix(st.Mtim.Sec, 0)
	}
	if !w.Latest.IsZero() && h.ModTime.After(w.Latest) {
		h.ModTime = w.Latest
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(name, "/")+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return h
}

func (w *Writer) header(h *tar.Header) error {
	if w.ahead != nil {
		return w.put(entry{header: h, fd: -1, name: h.Name})
	}
	return w.write(h)
}

func (w *Writer) write(h *tar.Header) error {
	if err := w.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write %s: %w", h.Name, err)
	}
	return nil
}

// Names lists an open directory, sorted, through a descriptor of its own: the
// one that is given may be anywhere in it, or be opened with O_PATH.
func Names(dirfd int) ([]string, error) {
	fd, err := unix.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", err)
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

func readlinkat(dirfd int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dirfd, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
