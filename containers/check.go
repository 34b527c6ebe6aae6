package containers

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Unowned tells whether the container has a directory, no record, and nobody
// who makes or removes it: a killed command left it.
func (c Container) Unowned() (bool, error) {
	held, err := c.lockDir(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, ErrBusy) || errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer held.Release()
	return !c.exists(), nil
}
