package treetar

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// holeBlock is the unit in which zeros become holes.
const holeBlock = 4 << 10

// zeros is never written to.
var zeros [holeBlock]byte

// file makes a regular file. A file that something is mounted on can't be
// replaced, and is written to.
func (e *extraction) file(dirfd int, base string, h *tar.Header, content io.Reader) error {
	const flags = unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, base, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
	ours := true
	if errors.Is(err, unix.EEXIST) {
		err = e.unlink(dirfd, base)
		switch {
		case err == nil:
			fd, err = unix.Openat(dirfd, base, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
		case errors.Is(err, unix.EBUSY):
			ours = false
			fd, err = unix.Openat(dirfd, base, flags|unix.O_TRUNC, 0)
		default:
			return err
		}
	}
	if err != nil {
		return call("create", err)
	}
	if err = Fill(e.ctx, fd, h.Size, content, e.buf); err == nil {
		e.bytes += h.Size
	}
	if err == nil && ours {
		err = e.attributes(fd, h)
	}
	if closed := unix.Close(fd); err == nil {
		err = call("close", closed)
	}
	if err != nil && ours {
		_ = unix.Unlinkat(dirfd, base, 0)
	}
	return err
}

func writeSparse(fd int, data []byte, offset int64) error {
	begin := 0
	for at := 0; at < len(data); at += holeBlock {
		end := min(at+holeBlock, len(data))
		if !bytes.Equal(data[at:end], zeros[:end-at]) {
			continue
		}
		if err := writeAll(fd, data[begin:at], offset+int64(begin)); err != nil {
			return err
		}
		begin = end
	}
	return writeAll(fd, data[begin:], offset+int64(begin))
}

func writeAll(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return call("write", err)
		}
		data, offset = data[n:], offset+int64(n)
	}
	return nil
}

// attributes sets what a stream says of an open file: the owner first, since
// chown(2) clears set-id bits and capabilities.
func (e *extraction) attributes(fd int, h *tar.Header) error {
	theirs, err := e.chown(h, func(o Owned) error { return unix.Fchown(fd, int(o.UID), int(o.GID)) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, e.mode(h, theirs)); err != nil {
		return call("chmod", err)
	}
	for record, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || !carried(name) || !e.o.Privileges && !strings.HasPrefix(name, "user.") {
			continue
		}
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) {
			return call("fsetxattr "+name, err)
		}
		if err != nil {
			e.note("xattr "+name, "%s: the attribute %s is left out: %v", Printable(h.Name), name, err)
		}
	}
	if h.ModTime.IsZero() {
		return nil
	}
	// Linux 5.8 and later.
	return call("utimensat", unix.UtimesNanoAt(fd, "", times(h), unix.AT_EMPTY_PATH))
}

// attributesAt is attributes for what can't be opened.
func (e *extraction) attributesAt(dirfd int, base string, h *tar.Header) error {
	theirs, err := e.chown(h, func(o Owned) error {
		return unix.Fchownat(dirfd, base, int(o.UID), int(o.GID), unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeFifo {
		// The mode is that of a file that was made a moment ago: should it be
		// a link by now, O_NOFOLLOW tells.
		fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return call("open", err)
		}
		defer unix.Close(fd)
		if err := unix.Fchmod(fd, e.mode(h, theirs)); err != nil {
			return call("chmod", err)
		}
	}
	return call("utimensat", unix.UtimesNanoAt(dirfd, base, times(h), unix.AT_SYMLINK_NOFOLLOW))
}

// chown gives an entry its owner; theirs is false when that is none that exists
// here, and the entry is the caller's.
func (e *extraction) chown(h *tar.Header, set func(Owned) error) (theirs bool, err error) {
	if e.o.Owner == nil {
		return true, nil
	}
	o := e.o.Owner(Owned{uint32(h.Uid), uint32(h.Gid)})
	err = set(o)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		e.note("owner", "%s: its owner %d:%d is none that can be set here", Printable(h.Name), o.UID, o.GID)
		return false, nil
	}
	return true, call("chown", err)
}

// mode is that of an entry. Set-id bits of another owner's file would give who
// runs it the caller's ids; a directory's only say whose its new files are.
func (e *extraction) mode(h *tar.Header, theirs bool) uint32 {
	const setIDs = unix.S_ISUID | unix.S_ISGID
	mode := uint32(h.Mode) & 0o7777
	if !e.o.Privileges || !theirs && h.Typeflag != tar.TypeDir {
		mode &^= setIDs
	}
	return mode
}

func times(h *tar.Header) []unix.Timespec {
	t := timespec(h.ModTime)
	return []unix.Timespec{t, t}
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
