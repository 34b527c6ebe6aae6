package layers

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nook/internal/hint"
)

// version is that of Meta, Chain and the owners file.
const version = 1

// ErrNotUnpacked says that no chain of these diff ids is in the store.
var ErrNotUnpacked = errors.New("the image's layers are not unpacked")

// ErrIncomplete says that a layer lacks a part: a disk or a person lost it.
var ErrIncomplete = errors.New("incomplete")

// ErrOtherIDs says that a layer was unpacked for other ids than the store's.
var ErrOtherIDs = errors.New("unpacked for other ids")

// RootAttr are the attributes of a root directory.
type RootAttr struct {
	Mode uint32 `json:"mode"` // permissions, set-id bits and sticky bit
	UID  uint32 `json:"uid"`  // the image's, in all modes of ids
	GID  uint32 `json:"gid"`
}

// Chain is an unpacked image: a stack of layers.
type Chain struct {
	Version int `json:"version"`
	IDs     IDs `json:"ids"`
	// Keys name the layers, bottom to top.
	Keys []string `json:"keys"`
	// Hidden is how many of the first Keys never show, because a layer above
	// them hides everything.
	Hidden int `json:"hidden,omitempty"`
	// Root is what the topmost layer that says something of its root directory
	// says; nil when none does, which means 0755 and root.
	Root *RootAttr `json:"root,omitempty"`
	// Notes tell what couldn't be unpacked as it is in the image.
	Notes []string `json:"notes,omitempty"`
}

// Store keeps unpacked layers in a directory. It holds no state, so any number
// of them, in any number of processes, may share one.
type Store struct {
	dir string
	ids IDs
	// bomb is bombBytes, less in tests.
	bomb int64
	// boot is the id of this boot: "" for the kernel's word, another in tests.
	boot string
}

// NewStore is the store in dir, which Unpack makes when it is missing, for
// layers that were, or will be, unpacked in the given mode of ids.
func NewStore(dir string, ids IDs) *Store { return &Store{dir: dir, ids: ids, bomb: bombBytes} }

// Chain finds the unpacked layers of an image by its diff ids ("sha256:…"),
// bottom to top. It reads one small file, looks for the layers' directories and
// works outside of a stage too. The error is ErrNotUnpacked, also where a layer
// was lost, or ErrOtherIDs with a hint. What the disk may have lost when the
// machine went down is among them: see Ready.
func (s *Store) Chain(diffIDs []string) (Chain, error) {
	id, err := chainID(diffIDs)
	if err != nil {
		return Chain{}, err
	}
	c, err := readChain(s.chainPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Chain{}, ErrNotUnpacked
	}
	if err != nil {
		return Chain{}, err
	}
	if err := s.checkIDs(c.IDs); err != nil {
		return Chain{}, err
	}
	for _, key := range c.Keys {
		// Two lookups a layer, under 3 us: the marker is written last.
		for _, name := range []string{metaFile, "fs"} {
			if _, err := os.Lstat(filepath.Join(s.layerPath(key), name)); err != nil {
				return Chain{}, fmt.Errorf("%w: %w", ErrNotUnpacked, err)
			}
		}
	}
	return c, nil
}

func readChain(file string) (Chain, error) {
	var c Chain
	data, err := os.ReadFile(file)
	if err != nil {
		return c, fmt.Errorf("read chain: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read chain %s: %w: %w", file, ErrNotUnpacked, err)
	}
	if c.Version != version {
		return c, fmt.Errorf("read chain %s: version %d is not known", file, c.Version)
	}
	return c, nil
}

// Dirs are the lower directories of a chain as overlayfs wants them, the
// topmost first.
func (s *Store) Dirs(c Chain) []string {
	dirs := make([]string, 0, len(c.Keys))
	for i := len(c.Keys) - 1; i >= c.Hidden; i-- {
		dirs = append(dirs, s.fsPath(c.Keys[i]))
	}
	return dirs
}

// Keys are those that the layers of an image may have here, unpacked or not.
func Keys(diffIDs []string) ([]string, error) {
	var keys []string
	for i, id := range diffIDs {
		chain, err := chainID(diffIDs[:i+1])
		if err != nil {
			return nil, err
		}
		keys = append(keys, strings.TrimPrefix(id, "sha256:"), "chain-"+chain)
	}
	return keys, nil
}

func (s *Store) checkIDs(theirs IDs) error {
	if theirs == s.ids {
		return nil
	}
	advice := "use the ids it was unpacked for (--ids " + string(theirs) + "), or another data root (--root DIR)"
	if theirs == Root || s.ids == Root {
		advice = "root and others can't share a data root: choose another with --root DIR"
	}
	return hint.Errorf(advice, "the layer is %w: %s, and these are %s", ErrOtherIDs, theirs, s.ids)
}

func (s *Store) chainPath(hexID string) string {
	return filepath.Join(s.dir, "chains", hexID+".json")
}

func (s *Store) layerPath(key string) string { return filepath.Join(s.dir, key) }

func (s *Store) fsPath(key string) string { return filepath.Join(s.dir, key, "fs") }

// digestHex checks an id, which comes from an image and becomes a file's name.
func digestHex(id string) (string, error) {
	digits, ok := strings.CutPrefix(id, "sha256:")
	if ok && len(digits) == hex.EncodedLen(sha256.Size) && strings.Trim(digits, "0123456789abcdef") == "" {
		return digits, nil
	}
	return "", fmt.Errorf("%s is no sha256 digest", printable(id))
}

// chainID is the hexadecimal part of the ChainID of a stack of layers (OCI
// image specification, config.md, "Layer ChainID").
func chainID(diffIDs []string) (string, error) {
	if len(diffIDs) == 0 {
		return "", errors.New("the image has no layers")
	}
	var chain string
	for i, id := range diffIDs {
		digits, err := digestHex(id)
		if err != nil {
			return "", fmt.Errorf("layer %d: %w", i+1, err)
		}
		if i == 0 {
			chain = digits
			continue
		}
		sum := sha256.Sum256([]byte("sha256:" + chain + " " + id))
		chain = hex.EncodeToString(sum[:])
	}
	return chain, nil
}
