package events

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/lockfile"
)

const (
	// keptFiles stay beside the one that is written.
	keptFiles = 1
	// mostFiles stay for a reader that is slow, or stopped.
	mostFiles = 16
)

// rotate gives the file a number, unless somebody else did, and removes those
// that are too old and that nobody reads.
func rotate(root string, limit int64) error {
	unlock, err := lockfile.TryLock(filepath.Join(root, lockName))
	if errors.Is(err, lockfile.ErrHeld) {
		return nil // who holds it does the same
	}
	if err != nil {
		return fmt.Errorf("rotate events: %w", err)
	}
	defer unlock()
	path := filepath.Join(root, fileName)
	st, err := os.Lstat(path)
	if err != nil || st.Size() < limit {
		return nil // it was rotated a moment ago
	}
	old, err := numbers(root)
	if err != nil {
		return err
	}
	next := 1
	if len(old) > 0 {
		next = old[len(old)-1] + 1
	}
	if err := os.Rename(path, numbered(root, next)); err != nil {
		return fmt.Errorf("rotate events: %w", err)
	}
	old = append(old, next)
	for len(old) > keptFiles {
		if len(old) <= mostFiles && isRead(numbered(root, old[0])) {
			break // and what follows is still to be read
		}
		if err := os.Remove(numbered(root, old[0])); err != nil {
			return fmt.Errorf("rotate events: %w", err)
		}
		old = old[1:]
	}
	return nil
}

// A reader holds a lock of the open file description (fcntl_locking(2)), which
// can be looked at without taking one: a look must not be in a reader's way.

func hold(f *os.File) {
	// A file system without locks doesn't spare the files of slow readers.
	_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
}

// isRead tells whether a reader holds the file.
func isRead(path string) bool {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

func numbered(root string, n int) string {
	return filepath.Join(root, fileName+"."+strconv.Itoa(n))
}

// numbers are those of the files that were rotated, the oldest first.
func numbers(root string) ([]int, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list events: %w", err)
	}
	var out []int
	for _, e := range entries {
		if text, ok := strings.CutPrefix(e.Name(), fileName+"."); ok {
			if n, err := strconv.Atoi(text); err == nil && n > 0 {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}
