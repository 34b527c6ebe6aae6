package layers

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// copyLeaf copies what is no directory to a name that is free in the directory
// todir, with all its attributes and the owner it has on disk.
func copyLeaf(at *place, todir int, name string) error {
	st := &at.stat
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return copyFile(at, todir, name)
	case unix.S_IFLNK:
		target, err := readLink(at)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, todir, name); err != nil {
			return fmt.Errorf("symlink: %w", err)
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(todir, name, st.Mode&unix.S_IFMT|0o600, 0); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
	default:
		return fmt.Errorf("copy: its type %#o can't be copied", st.Mode&unix.S_IFMT)
	}
	if err := chownFromZero(todir, name, st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(todir, name, st.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	return copyTimes(todir, name, st)
}

// chownFromZero sets the owner if it isn't that of what is newly made. So
// nothing is ever chowned where 0 is the only id.
func chownFromZero(dirfd int, name string, st *unix.Stat_t) error {
	if st.Uid == 0 && st.Gid == 0 {
		return nil
	}
	if err := unix.Fchownat(dirfd, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown to %d:%d: %w", st.Uid, st.Gid, err)
	}
	return nil
}

func copyTimes(dirfd int, name string, st *unix.Stat_t) error {
	return setTimes(dirfd, name, &attributes{atime: st.Atim, mtime: st.Mtim})
}

func copyFile(at *place, todir int, name string) (err error) {
	from, err := unix.Openat(at.dirfd, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(from) }()
	to, err := unix.Openat(todir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		if closeErr := unix.Close(to); err == nil && closeErr != nil {
			err = fmt.Errorf("close: %w", closeErr)
		}
	}()
	if err := copyContent(from, to, at.stat.Size); err != nil {
		return err
	}
	if err := chownFromZero(todir, name, &at.stat); err != nil {
		return err
	}
	if err := unix.Fchmod(to, at.stat.Mode&0o7777); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	return copyTimes(todir, name, &at.stat)
}

// copyContent shares the blocks where the file system can (btrfs, xfs, bcachefs:
// ioctl_ficlone(2)), and else copies the parts that are no holes.
func copyContent(from, to int, size int64) error {
	if unix.IoctlFileClone(to, from) == nil {
		return nil
	}
	for offset := int64(0); offset < size; {
		data, err := unix.Seek(from, offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to the end
		}
		hole := size
		if err != nil {
			data = offset // no such file system call here: all of it is data
		} else if hole, err = unix.Seek(from, data, unix.SEEK_HOLE); err != nil {
			hole = size
		}
		if err := copyRange(from, to, data, min(hole, size)); err != nil {
			return err
		}
		offset = hole
	}
	if err := unix.Ftruncate(to, size); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	return nil
}

func copyRange(from, to int, begin, end int64) error {
	in, out := begin, begin
	for in < end {
		n, err := unix.CopyFileRange(from, &in, to, &out, int(min(end-in, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL),
			errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
			return copyBytes(from, to, in, end)
		case err != nil:
			return fmt.Errorf("copy_file_range: %w", err)
		case n == 0:
			return nil // the file got shorter
		}
	}
	return nil
}

func copyBytes(from, to int, begin, end int64) error {
	buf := make([]byte, fileBuffer)
	for begin < end {
		n, err := unix.Pread(from, buf[:min(end-begin, int64(len(buf)))], begin)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		if err := writeAll(to, buf[:n], begin); err != nil {
			return err
		}
		begin += int64(n)
	}
	return nil
}

// copyXattrs copies those that are the image's. What the file system of the
// copy or this user namespace doesn't take is left out, as on unpacking.
func copyXattrs(from, to int) error {
	xattrs, err := readXattrs(from)
	if err != nil {
		return err
	}
	for _, x := range xattrs {
		if err := unix.Fsetxattr(to, x.name, []byte(x.value), 0); err != nil && fatalXattr(err) {
			return fmt.Errorf("fsetxattr %s: %w", x.name, err)
		}
	}
	return nil
}

func readXattrs(fd int) ([]xattr, error) {
	var xattrs []xattr
	wanted := func(name string) bool { return !forged(name) }
	err := treetar.EachXattr(fd, wanted, func(name, value string) { xattrs = append(xattrs, xattr{name, value}) })
	return xattrs, err
}

// procPath names an open file, for calls that only take a path.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
