package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/lockfile"
)

// Directories with these prefixes are no volumes: one that is being made, and
// one that was taken away.
const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// Detach takes the name from a volume, whose files Remove or Sweep remove then.
// The caller holds Change and knows that nobody uses it.
func (s Store) Detach(name string) (gone string, err error) {
	if err := ValidName(name); err != nil {
		return "", err
	}
	if gone, err = os.MkdirTemp(s.path, gonePrefix); err != nil {
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	err = unix.Rename(s.Dir(name), gone)
	if err != nil {
		_ = os.Remove(gone)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("remove volume %s: %w", name, err)
	}
	return filepath.Base(gone), nil
}

// Remove removes the files of what Detach took away. Those that belong to ids
// of the user namespace only go in a stage; others have been removed when it
// meets an error.
func (s Store) Remove(gone string) error {
	if !strings.HasPrefix(gone, gonePrefix) || strings.Contains(gone, "/") {
		return fmt.Errorf("remove volume %s: %w", gone, unix.EINVAL)
	}
	if err := os.RemoveAll(filepath.Join(s.path, gone)); err != nil {
		return fmt.Errorf("remove volume: %w", err)
	}
	return nil
}

// Litter lists what killed commands left, for Sweep: detached volumes, and those
// that were never finished.
func (s Store) Litter() ([]string, error) {
	entries, err := os.ReadDir(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sweep volumes: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), gonePrefix) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Sweep removes Litter. In a stage only, as Remove.
func (s Store) Sweep() error {
	litter, err := s.Litter()
	if err != nil || len(litter) == 0 {
		return err
	}
	// Who makes a volume holds Use: with this lock none of them is in the making.
	unlock, err := lockfile.TryLock(filepath.Join(s.path, ".lock"))
	alone := err == nil
	if alone {
		defer unlock()
	}
	for _, name := range litter {
		if strings.HasPrefix(name, newPrefix) && !alone {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.path, name)); err != nil {
			return fmt.Errorf("sweep volumes: %w", err)
		}
	}
	return nil
}
