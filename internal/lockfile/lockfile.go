// Package lockfile takes advisory whole-file locks, flock(2), which the kernel
// drops when their holder dies.
//
//	unlock, err := lockfile.Lock(ctx, path)
//	defer unlock()
//
// The file is made when it is missing and is never removed by this package: a
// lock on a file that another process unlinks is a lock on nothing.
//
// On a read-only file system a file that is there is locked all the same, as
// others may see it writable. Where there is none, nobody has made one who
// changes what it protects, and no lock is taken.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld says that another process, or another call, holds the lock.
var ErrHeld = errors.New("lock is held")

// Lock takes the exclusive lock of path, waiting for it until ctx ends.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	return wait(ctx, path, unix.LOCK_EX)
}

// RLock takes the shared lock of path, waiting for it until ctx ends.
func RLock(ctx context.Context, path string) (unlock func(), err error) {
	return wait(ctx, path, unix.LOCK_SH)
}

// TryLock takes the exclusive lock of path or returns ErrHeld at once.
func TryLock(path string) (unlock func(), err error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return func() {}, nil
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrHeld)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// open opens the file of a lock; nil where there is none and can be none.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// wait tries without blocking first, the usual case; then it polls, because a
// blocked flock(2) can't be called off by ctx.
func wait(ctx context.Context, path string, how int) (func(), error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return func() {}, nil
	}
	const longest = 50 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := flock(f, how|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(pause):
		}
	}
}
