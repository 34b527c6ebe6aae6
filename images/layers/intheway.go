package layers

import (
	"errors"
	"path"
)

// ErrIsDirectory says that a file would take a directory's place.
var ErrIsDirectory = errors.New("a directory is in the place of a file")

// ErrNotDirectory says that a directory would take a file's place, ErrLinkNotDirectory
// a symlink's: it isn't followed, as what is copied has a directory of that name.
var (
	ErrNotDirectory     = errors.New("a file is in the place of a directory")
	ErrLinkNotDirectory = errors.New("a symlink is in the place of a directory")
)

// notDirectory is why a name can't be entered.
func (s *Spot) notDirectory(name string) error {
	if at, err := s.lstat(name); err == nil && at != nil && at.isLink() {
		return ErrLinkNotDirectory
	}
	return ErrNotDirectory
}

// inImage is a path of the layer as messages show it.
func inImage(elem ...string) string { return printable(path.Join("/", path.Join(elem...))) }
