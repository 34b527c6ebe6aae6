// Package lockfile takes advisory whole-file locks, flock(2), which the kernel
// drops when their holder dies.
//
//	unlock, err := lockfile.Lock(ctx, path)
//	defer unlock()
//
// The file is made when it is missing and is never removed by this package: a
// lock on a file that another process unlinks is a lock on nothing.
package lockfile

import (
	"context"
	"errors"
	"fmt"
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
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrHeld)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
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
