package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// attributes are what an entry has besides its content.
type attributes struct {
	mode     uint32 // permissions, set-id bits and sticky bit
	uid, gid uint32
	atime    unix.Timespec
	mtime    unix.Timespec
	xattrs   []xattr
}

type xattr struct{ name, value string }

const (
	// fileBuffer is what a file's content is copied by.
	fileBuffer = 256 << 10
	// holeBlock is the unit in which zeros become holes.
	holeBlock = 4 << 10
	// maxID is the greatest id: the one above means "leave it" to chown(2).
	maxID = 1<<32 - 2
)

// attributes reads a header.
func (l *Layer) attributes(h *tar.Header) (*attributes, error) {
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return nil, fmt.Errorf("its owner %d:%d is none that the kernel has", h.Uid, h.Gid)
	}
	a := &attributes{
		mode:  uint32(h.Mode) & 0o7777,
		uid:   uint32(h.Uid),
		gid:   uint32(h.Gid),
		mtime: timespec(h.ModTime),
	}
	a.atime = a.mtime
	if h.AccessTime.After(h.ModTime) {
		a.atime = timespec(h.AccessTime)
	}
	for record, value := range h.PAXRecords {
		x, ok := splitXattr(record)
		if !ok {
			continue
		}
		if forged(x) {
			l.notes.add("%s: the attribute %s is left out: only overlayfs may set it", printable(h.Name), printable(x))
			continue
		}
		a.xattrs = append(a.xattrs, xattr{x, value})
	}
	slices.SortFunc(a.xattrs, func(x, y xattr) int { return strings.Compare(x.name, y.name) })
	return a, nil
}

// forged says whether overlayfs would take the xattr for one of its own: a
// whiteout, an opaque directory, or a redirection to anywhere in the layers
// below.
func forged(name string) bool {
	return strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.overlay.")
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// own writes down the owner that the file system can't have.
func (l *Layer) own(d *dir, name string, a *attributes) {
	if l.ids != Single || a.uid == 0 && a.gid == 0 {
		return
	}
	if d.owners == nil {
		d.owners = map[string]Owner{}
	}
	d.owners[name] = Owner{UID: a.uid, GID: a.gid}
}

// file makes a regular file.
func (l *Layer) file(ctx context.Context, d *dir, name string, h *tar.Header, content io.Reader) error {
	if err := l.holes.Add(h); err != nil {
		return err
	}
	a, err := l.attributes(h)
	if err != nil {
		return err
	}
	fd := -1
	err = l.put(d, name, func(dirfd int) error {
		fd, err = unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = l.fill(ctx, fd, h.Size, content)
	if err == nil {
		err = l.setByFD(fd, a, h.Name)
	}
	if closeErr := unix.Close(fd); err == nil && closeErr != nil {
		err = fmt.Errorf("close: %w", closeErr)
	}
	if err != nil {
		return err
	}
	l.bytes += h.Size
	l.own(d, name, a)
	dirfd, err := l.tree.handle(d)
	if err != nil {
		return err
	}
	return setTimes(dirfd, name, a)
}

// fill copies the content, leaving holes for zeros: archive/tar gives the holes
// of a sparse entry as zeros.
func (l *Layer) fill(ctx context.Context, fd int, size int64, content io.Reader) error {
	var offset int64 // in the file
	holed := false   // whether offset was reached by leaving a hole
	for offset < size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := fill(content, l.buf[:min(size-offset, int64(len(l.buf)))])
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if holed, err = writeSparse(fd, l.buf[:n], offset); err != nil {
			return err
		}
		offset += int64(n)
	}
	if holed {
		if err := unix.Ftruncate(fd, size); err != nil {
			return fmt.Errorf("ftruncate: %w", err)
		}
	}
	return nil
}

// writeSparse writes data at offset but for its blocks of zeros, in as few
// calls as that takes. It says whether the last block was left out.
func writeSparse(fd int, data []byte, offset int64) (holed bool, err error) {
	begin := 0 // of what is not yet written
	for at := 0; at < len(data); at += holeBlock {
		end := min(at+holeBlock, len(data))
		holed = isZero(data[at:end])
		if !holed {
			continue
		}
		if err := writeAll(fd, data[begin:at], offset+int64(begin)); err != nil {
			return false, err
		}
		begin = end
	}
	return holed, writeAll(fd, data[begin:], offset+int64(begin))
}

func writeAll(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		data, offset = data[n:], offset+int64(n)
	}
	return nil
}

// setByFD sets all but the times: the owner first, since chown(2) clears the
// set-id bits and the capabilities.
func (l *Layer) setByFD(fd int, a *attributes, unsafeName string) error {
	if l.chowns(a) {
		if err := unix.Fchown(fd, int(a.uid), int(a.gid)); err != nil {
			return ownerError(a, err)
		}
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for _, x := range a.xattrs {
		if err := unix.Fsetxattr(fd, x.name, []byte(x.value), 0); err != nil {
			if fatalXattr(err) {
				return fmt.Errorf("fsetxattr %s: %w", printable(x.name), err)
			}
			l.notes.add("%s: the attribute %s is left out: %v", printable(unsafeName), printable(x.name), err)
		}
	}
	return nil
}

// chowns says whether the owner has to be set: whatever is made here belongs to
// 0:0, also beneath a directory with the set-group-id bit, which directories
// get last of all.
func (l *Layer) chowns(a *attributes) bool {
	return l.ids != Single && (a.uid != 0 || a.gid != 0)
}

// fatalXattr tells a disk that is full from a file system or a user namespace
// that doesn't have attributes of the kind. docker and umoci go on as well.
func fatalXattr(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO)
}

// setByName sets the attributes of what can't be opened: a symlink or a fifo.
// No xattr that a user namespace could set exists on them (xattr(7)).
func (l *Layer) setByName(d *dir, name string, a *attributes, chmod bool) error {
	fd, err := l.tree.handle(d)
	if err != nil {
		return err
	}
	if l.chowns(a) {
		if err := unix.Fchownat(fd, name, int(a.uid), int(a.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return ownerError(a, err)
		}
	}
	if chmod {
		if err := unix.Fchmodat(fd, name, a.mode, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	for _, x := range a.xattrs {
		l.notes.add("%s: the attribute %s is left out: the file is neither regular nor a directory",
			printable(path.Join(d.path(), name)), printable(x.name))
	}
	return setTimes(fd, name, a)
}

func setTimes(dirfd int, name string, a *attributes) error {
	if err := unix.UtimesNanoAt(dirfd, name, []unix.Timespec{a.atime, a.mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("utimensat: %w", err)
	}
	return nil
}

func ownerError(a *attributes, err error) error {
	err = fmt.Errorf("chown to %d:%d: %w", a.uid, a.gid, err)
	if errors.Is(err, unix.EINVAL) {
		return hint.Wrap(err, "the id is beyond your range in /etc/subuid or /etc/subgid: ask for a longer range, or use --ids single")
	}
	return err
}

// setDirs sets the attributes of all directories, the innermost first, once
// nothing is made in them any more.
func (l *Layer) setDirs(ctx context.Context, d *dir, hidden bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	hidden = hidden || d.opaque
	if hidden {
		if err := l.dropWhiteouts(d); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) {
		if err := l.setDirs(ctx, d.dirs[name], hidden); err != nil {
			return err
		}
	}
	a := d.attr
	if a == nil {
		a = &attributes{mode: 0o755, atime: unix.Timespec{Nsec: unix.UTIME_OMIT}, mtime: unix.Timespec{Nsec: unix.UTIME_OMIT}}
	}
	fd, err := l.tree.handle(d)
	if err == nil {
		err = l.setByFD(fd, a, d.path())
	}
	if err == nil {
		err = setTimes(fd, ".", a)
	}
	if err != nil {
		return entryError(d.path(), l.fs, err)
	}
	return nil
}

// dropWhiteouts removes whiteouts where nothing below shows anyway: where a
// directory is not merged, overlayfs lists the names of its whiteouts.
func (l *Layer) dropWhiteouts(d *dir) error {
	for name := range d.gone {
		fd, err := l.tree.handle(d)
		if err != nil {
			return err
		}
		if isWhiteout(fd, name) {
			if err := unix.Unlinkat(fd, name, 0); err != nil {
				return fmt.Errorf("unlink: %w", err)
			}
		}
	}
	return nil
}
