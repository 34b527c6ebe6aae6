package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/lockfile"
)

// ErrDataLost says that a volume has no directory for its files.
var ErrDataLost = errors.New("its files are lost")

// ErrNoRecord says that a directory among the volumes is none.
var ErrNoRecord = errors.New("it is no volume, as it has no " + record)

// State is what Check finds of one entry of the store.
type State struct {
	Name string
	Err  error // what is damaged; nil: nothing
	// Left says that a fill that was killed left files: Tidy.
	Left bool
	// Litter says that it is no volume any more, or not yet one: Sweep.
	Litter bool
}

// Check looks at every volume, and at what killed commands left. It waits for
// those who make one.
func (s Store) Check(ctx context.Context) ([]State, error) {
	if _, err := os.Lstat(s.path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	done, err := s.Change(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.path)
	done()
	if err != nil {
		return nil, fmt.Errorf("check volumes: %w", err)
	}
	var out []State
	for _, e := range entries {
		state := State{Name: e.Name(), Litter: strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), gonePrefix)}
		switch {
		case state.Litter && s.there(e.Name()): // still
		case state.Litter, !e.IsDir(), strings.HasPrefix(e.Name(), "."):
			continue
		default:
			if state.Err = s.damage(e.Name()); state.Err != nil && !s.there(e.Name()) {
				continue // it was removed meanwhile
			}
			state.Left = state.Err == nil && s.left(e.Name())
		}
		out = append(out, state)
	}
	return out, nil
}

func (s Store) there(name string) bool {
	_, err := os.Lstat(s.Dir(name))
	return err == nil
}

func (s Store) damage(name string) error {
	_, err := s.Get(name)
	if errors.Is(err, ErrNotFound) {
		return ErrNoRecord
	}
	if err != nil {
		return err
	}
	if info, err := os.Lstat(s.Data(name)); err != nil || !info.IsDir() {
		return ErrDataLost
	}
	return nil
}

// left tells whether a fill was killed: it left something and nobody holds the
// volume.
func (s Store) left(name string) bool {
	if !s.Pending(name) && unix.Access(s.filling(name), unix.F_OK) != nil {
		return false
	}
	unlock, err := lockfile.TryLock(filepath.Join(s.Dir(name), "lock"))
	if err != nil {
		return false
	}
	unlock()
	return true
}

// Tidy ends what killed fills left: whole copies are put into their volumes,
// others removed. In a stage only.
func (s Store) Tidy(ctx context.Context) error {
	list, _ := s.List() // damaged ones are told by Check
	for _, v := range list {
		if !s.left(v.Name) {
			continue
		}
		if err := s.tidy(ctx, v.Name); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

func (s Store) tidy(ctx context.Context, name string) error {
	done, err := s.Hold(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	if err := s.finish(name); err != nil {
		return err
	}
	if err := os.RemoveAll(s.filling(name)); err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}
