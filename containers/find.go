package containers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"nook/internal/hint"
)

// ErrAmbiguous says that more than one container has an id with this prefix.
var ErrAmbiguous = errors.New("more than one container")

// Find finds a container by its name, its id, or a prefix of its id that no
// other has.
func (d Dir) Find(nameOrID string) (Container, error) {
	if ValidName(nameOrID) == nil {
		if id, err := os.Readlink(filepath.Join(d.names(), nameOrID)); err == nil {
			if ct := d.At(filepath.Base(id)); ct.exists() {
				return ct, nil
			}
		}
	}
	all, err := d.List()
	if err != nil {
		return Container{}, err
	}
	var found []Container
	for _, ct := range all {
		if nameOrID != "" && strings.HasPrefix(ct.ID, nameOrID) {
			found = append(found, ct)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Container{}, hint.Errorf("see --root and NOOK_ROOT for another data root", "container %q: %w", nameOrID, ErrNotFound)
	}
	return Container{}, hint.Errorf("write more of the id, or the name", "container %q: %w: %.12s and %.12s", nameOrID, ErrAmbiguous, found[0].ID, found[1].ID)
}

func (c Container) exists() bool {
	_, err := os.Lstat(filepath.Join(c.Path, "config.json"))
	return err == nil
}
