package layers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Owner is what an image says of an entry and the file system of this host
// can't hold.
type Owner struct {
	Path string `json:"path"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// Device is "c" or "b" for a device node, which doesn't exist in the
	// directory at all; then Mode, Major and Minor are its. It is "" for an
	// entry that exists and belongs to 0:0 there.
	Device string `json:"device,omitempty"`
	Mode   uint32 `json:"mode,omitempty"`
	Major  int64  `json:"major,omitempty"`
	Minor  int64  `json:"minor,omitempty"`
}

// ownersFile stands beside fs. It is there only when it has something to say.
const ownersFile = "owners"

// ReadOwners reads what stands beside a layer's directory fs: in Single mode
// the owner of every entry that isn't 0:0 in the image, in all modes the device
// nodes, sorted by path. A path is relative to fs, and has no symlinks in it.
func ReadOwners(fsDir string) ([]Owner, error) {
	f, err := os.Open(ownersPath(fsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read owners: %w", err)
	}
	defer f.Close()
	var owners []Owner
	for in := json.NewDecoder(bufio.NewReader(f)); in.More(); {
		var o Owner
		if err := in.Decode(&o); err != nil {
			return nil, fmt.Errorf("read owners %s: %w", f.Name(), err)
		}
		owners = append(owners, o)
	}
	return owners, nil
}

func ownersPath(fsDir string) string {
	return path.Join(path.Dir(path.Clean(fsDir)), ownersFile)
}

func (l *Layer) writeOwners(file string) error {
	return writeOwners(file, l.collectOwners(l.tree.root, nil))
}

// writeOwners writes one JSON object a line, and nothing where there is none.
func writeOwners(file string, owners []Owner) error {
	if len(owners) == 0 {
		return nil
	}
	slices.SortFunc(owners, func(a, b Owner) int { return strings.Compare(a.Path, b.Path) })
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write owners: %w", err)
	}
	buffered := bufio.NewWriter(f)
	out := json.NewEncoder(buffered)
	for _, o := range owners {
		if err = out.Encode(o); err != nil {
			break
		}
	}
	if err = errors.Join(err, buffered.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write owners: %w", err)
	}
	return nil
}

func (l *Layer) collectOwners(d *dir, owners []Owner) []Owner {
	here := d.path()
	if a := d.attr; a != nil && l.ids == Single && (a.uid != 0 || a.gid != 0) {
		owners = append(owners, Owner{Path: here, UID: a.uid, GID: a.gid})
	}
	for name, o := range d.owners {
		o.Path = path.Join(here, name)
		owners = append(owners, o)
	}
	for child := range maps.Values(d.dirs) {
		owners = l.collectOwners(child, owners)
	}
	return owners
}
