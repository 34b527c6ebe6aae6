package engine

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/containers/monitor"
	"nook/rootfs"
)

// fds are descriptors that are handed to children and closed here. The first
// error is kept, so that a list of opens reads as one.
type fds struct {
	all []int
	err error
}

// close closes all of them.
func (f *fds) close() {
	for _, fd := range f.all {
		_ = unix.Close(fd)
	}
	f.all = nil
}

// high keeps fd and returns a copy that a monitor can be given.
func (f *fds) high(fd int, err error) int {
	if err != nil {
		f.fail(err)
		return -1
	}
	n, err := monitor.High(fd)
	_ = unix.Close(fd)
	if err != nil {
		f.fail(err)
		return -1
	}
	f.all = append(f.all, n)
	return n
}

// copy is high for a descriptor that stays the caller's.
func (f *fds) copy(fd int) int {
	n, err := monitor.High(fd)
	if err != nil {
		f.fail(err)
		return -1
	}
	f.all = append(f.all, n)
	return n
}

func (f *fds) fail(err error) {
	if f.err == nil {
		f.err = err
	}
}

// dir opens a directory for its name only.
func (f *fds) dir(path string) int {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("open %s: %w", path, err)
	}
	return f.high(fd, err)
}

// rootDir opens a directory for a root file system.
func (f *fds) rootDir(elem ...string) rootfs.Dir {
	path := filepath.Join(elem...)
	return rootfs.Dir{Path: path, FD: f.dir(path)}
}

// null opens /dev/null.
func (f *fds) null() int {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("open /dev/null: %w", err)
	}
	return f.high(fd, err)
}

func (f *fds) pipe() (read, write int) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		f.fail(fmt.Errorf("pipe: %w", err))
		return -1, -1
	}
	return f.high(p[0], nil), f.high(p[1], nil)
}

func (f *fds) socketpair(kind int) (ours, theirs int) {
	p, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		f.fail(fmt.Errorf("socketpair: %w", err))
		return -1, -1
	}
	return f.high(p[0], nil), f.high(p[1], nil)
}

// number is more than any of them has.
func (f *fds) number() int {
	n := 0
	for _, fd := range f.all {
		n = max(n, fd+1)
	}
	return n
}

// take hands a descriptor to the caller: close no longer closes it.
func (f *fds) take(fd int) int {
	for i, have := range f.all {
		if have == fd {
			f.all = append(f.all[:i], f.all[i+1:]...)
			return fd
		}
	}
	return fd
}

// file makes a descriptor the caller's file, for which Go's poller waits and
// no thread does; nil for none.
func (f *fds) file(fd int, name string) *os.File {
	if fd < 0 {
		return nil
	}
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(f.take(fd)), name)
}

// drop closes one now.
func (f *fds) drop(fd int) {
	if fd >= 0 {
		_ = unix.Close(f.take(fd))
	}
}
