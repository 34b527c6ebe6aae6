package engine

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openBelow opens a path in a directory of the host, whose last component is no
// symlink. Together they may be longer than the kernel takes (PATH_MAX).
func openBelow(dir, name string, flags int) (int, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Open(filepath.Join(dir, name), flags, 0)
	if !errors.Is(err, unix.ENAMETOOLONG) {
		return fd, err
	}
	const way = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	at, err := unix.Open(dir, way, 0)
	for err == nil && len(name) >= unix.PathMax {
		var part string
		slash := strings.LastIndexByte(name[:unix.PathMax-1], '/')
		if slash < 0 {
			_ = unix.Close(at)
			return -1, unix.ENAMETOOLONG
		}
		part, name = name[:slash], name[slash+1:]
		var next int
		next, err = unix.Openat(at, part, way|unix.O_NOFOLLOW, 0)
		_ = unix.Close(at)
		at = next
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(at)
	return unix.Openat(at, name, flags, 0)
}

// statBelow is lstat(2) of such a path.
func statBelow(dir, name string, st *unix.Stat_t) error {
	err := unix.Lstat(filepath.Join(dir, name), st)
	if !errors.Is(err, unix.ENAMETOOLONG) {
		return err
	}
	fd, err := openBelow(dir, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, st)
}
