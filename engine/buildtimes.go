package engine

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// clampTimes sets back what is younger. A directory comes before what is in
// it; nothing is younger for that, as setting a time changes no directory.
func clampTimes(top string, epoch time.Time) error {
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", top, err)
	}
	c := &clamping{fd: fd, epoch: epoch, at: []unix.Timespec{{Sec: epoch.Unix()}, {Sec: epoch.Unix()}}}
	defer func() { _ = unix.Close(c.fd) }()
	if _, err := c.entry("."); err != nil {
		return err
	}
	return c.dir()
}

// clamping is in one directory at a time, however deep the tree is: a command
// can make one whose paths the kernel doesn't take, and with more levels than
// there are descriptors. No process is left that could move it elsewhere.
type clamping struct {
	fd    int
	epoch time.Time
	at    []unix.Timespec
}

// dir clamps what is in the directory.
func (c *clamping) dir() error {
	names, err := treetar.Names(c.fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		isDir, err := c.entry(name)
		if err != nil {
			return err
		}
		if !isDir {
			continue
		}
		if err := c.enter(name); err != nil {
			return err
		}
		if err := c.dir(); err != nil {
			return err
		}
		if err := c.enter(".."); err != nil {
			return err
		}
	}
	return nil
}

func (c *clamping) enter(name string) error {
	fd, err := unix.Openat(c.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	_ = unix.Close(c.fd)
	c.fd = fd
	return nil
}

// entry clamps one, and tells whether it is a directory.
func (c *clamping) entry(name string) (isDir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(c.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("fstatat %s: %w", name, err)
	}
	isDir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !time.Unix(st.Mtim.Unix()).After(c.epoch) {
		return isDir, nil
	}
	if err := unix.UtimesNanoAt(c.fd, name, c.at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return isDir, fmt.Errorf("utimensat %s: %w", name, err)
	}
	return isDir, nil
}
