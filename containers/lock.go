package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

// A container's directory is locked (flock(2)) by whoever makes, starts or
// removes it, and by its monitor for as long as that lives: the monitor
// inherits the open file of the command that started it. So a lock that is
// free means that nobody owns the container, whatever its state says.

// ErrBusy says that another command is at work on a container.
var ErrBusy = errors.New("container is busy")

// Lock holds a container.
type Lock struct{ dir *os.File }

// FD is the locked directory, for a monitor to inherit.
func (l *Lock) FD() int { return int(l.dir.Fd()) }

// Release lets go. The lock lasts as long as another process has the
// descriptor. It may be called twice, and on nil.
func (l *Lock) Release() {
	if l != nil {
		_ = l.dir.Close()
	}
}

// TryLock takes the container. ErrBusy: somebody has it; ErrNotFound: it is
// gone.
func (c Container) TryLock() (*Lock, error) { return c.lock(unix.LOCK_EX | unix.LOCK_NB) }

// WaitLock takes the container once nobody has it any more.
func (c Container) WaitLock(ctx context.Context) (*Lock, error) {
	type answer struct {
		lock *Lock
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		l, err := c.lock(unix.LOCK_EX)
		done <- answer{l, err}
	}()
	select {
	case a := <-done:
		return a.lock, a.err
	case <-ctx.Done():
		go func() { (<-done).lock.Release() }()
		return nil, ctx.Err()
	}
}

func (c Container) lock(how int) (*Lock, error) {
	l, err := c.lockDir(how)
	if err != nil {
		return nil, err
	}
	// Who had it before may have removed it.
	if !c.exists() {
		l.Release()
		return nil, fmt.Errorf("container %.12s: %w", c.ID, ErrNotFound)
	}
	return l, nil
}

// lockDir is lock for a container that may have no record.
func (c Container) lockDir(how int) (*Lock, error) {
	f, err := os.Open(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %.12s: %w", c.ID, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("lock container %.12s: %w", c.ID, err)
	}
	switch err = flock(f, how); {
	case err == nil:
		return &Lock{f}, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = hint.Errorf("try again in a moment", "container %.12s: %w", c.ID, ErrBusy)
	default:
		err = fmt.Errorf("lock container %.12s: %w", c.ID, err)
	}
	_ = f.Close()
	return nil, err
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Edit changes a record: its name and its restart policy are what may change.
// It may belong to a running container, whose monitor reads it again when it
// needs to know. Of two edits one waits for the other.
func (c Container) Edit(change func(*Config) error) error {
	names, err := c.dir.lockNames()
	if err != nil {
		return fmt.Errorf("edit container %.12s: %w", c.ID, err)
	}
	defer names.Release()
	cfg, err := c.Config()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("edit container %.12s: %w", c.ID, ErrNotFound)
	}
	if err != nil {
		return err
	}
	old := cfg.Name
	if err := change(cfg); err != nil {
		return err
	}
	if cfg.Name != old {
		if err := ValidName(cfg.Name); err != nil {
			return err
		}
		if err := c.dir.takeLocked(cfg.Name, c.ID); err != nil {
			return err
		}
	}
	if err := atomicfile.WriteJSON(filepath.Join(c.Path, "config.json"), cfg, 0o600, atomicfile.Durable); err != nil {
		if cfg.Name != old {
			c.dir.release(cfg.Name, c.ID)
		}
		if errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
			return fmt.Errorf("edit container %.12s: %w", c.ID, ErrNotFound)
		}
		return fmt.Errorf("edit container %.12s: %w", c.ID, err)
	}
	if cfg.Name != old {
		c.dir.release(old, c.ID)
	}
	return nil
}
