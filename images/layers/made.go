package layers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/lockfile"
)

// Made says of a layer that it didn't come out of a tar stream: a step of a
// build left it. It has its digests once it is packed, and its key, made up
// when it was placed, for good: what it is stacked on and what refers to it
// never has to look where it lies.
type Made struct {
	// Time stands in the history of images. An epoch, or another machine, may
	// have set it.
	Time time.Time `json:"time"`
	// Placed is when it came into the store.
	Placed time.Time `json:"placed,omitzero"`
	// Boot is the boot id under which it was written, while the disk may not
	// have all of it yet; "" when it has.
	Boot string `json:"boot,omitempty"`
	// Blob is the layer packed; nil: it wasn't yet.
	Blob *MadeBlob `json:"blob,omitempty"`
}

// MadeBlob is what a layer became when it was packed.
type MadeBlob struct {
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	MediaType string `json:"mediaType"`
	// Empty: the tar stream has no entry.
	Empty bool `json:"empty,omitempty"`
	// Lacks says that it isn't all of the directory, which no image is to run
	// on: Packed.Lacks.
	Lacks bool `json:"lacks,omitempty"`
}

// madePrefix begins the keys of such layers.
const madePrefix = "build-"

// IsMade tells whether a key is that of a layer that a build made.
func IsMade(key string) bool { return strings.HasPrefix(key, madePrefix) }

// Place takes a directory with the layer's files in fs, of the layers' file
// system, into the store. The caller holds Use until something refers to the
// key. Nothing waits for the disk: see Flush.
func (s *Store) Place(dir string, m Meta) (key string, err error) {
	if m.Made == nil {
		return "", errors.New("place layer: it is not one of a build")
	}
	if err := s.makeDirs(); err != nil {
		return "", err
	}
	var digits [32]byte
	_, _ = rand.Read(digits[:]) // never returns an error since Go 1.24
	key = madePrefix + hex.EncodeToString(digits[:])
	m.Version, m.IDs, m.Made.Boot, m.Made.Placed = version, s.ids, s.bootID(), time.Now()
	if err := atomicfile.WriteJSON(filepath.Join(dir, metaFile), m, 0o600, atomicfile.Volatile); err != nil {
		return "", err
	}
	if err := os.Rename(dir, s.layerPath(key)); err != nil {
		return "", fmt.Errorf("place layer: %w", err)
	}
	return key, nil
}

// Meta reads what is known of a layer. One that a build made before this
// boot and that the disk may not have is ErrIncomplete.
func (s *Store) Meta(key string) (Meta, error) {
	m, err := s.complete(key)
	if err == nil && m.Made != nil && m.Made.Boot != "" && m.Made.Boot != s.bootID() {
		return m, fmt.Errorf("layer %s: %w: it was not on the disk when the machine went down", key, ErrIncomplete)
	}
	return m, err
}

// Packed writes down what layers became when they were packed, by key, and
// that the disk has them: Flush was called since they were placed.
func (s *Store) Packed(metas map[string]Meta) error {
	for key, m := range metas {
		made := *m.Made
		made.Boot = ""
		m.Made = &made
		if err := atomicfile.WriteJSON(filepath.Join(s.layerPath(key), metaFile), m, 0o600, atomicfile.Durable); err != nil {
			return err
		}
	}
	return nil
}

// Flush waits until the disk has all that was written to the store's file
// system.
func (s *Store) Flush() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("flush layers: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("flush layers: syncfs: %w", err)
	}
	return nil
}

// Adopt records the chain of an image whose layers are here under these keys,
// bottom to top. A chain that is there already stays. The diff ids are pinned.
func (s *Store) Adopt(ctx context.Context, diffIDs, keys []string) error {
	if _, err := s.Chain(diffIDs); !errors.Is(err, ErrNotUnpacked) {
		return err
	}
	u := &unpacking{store: s}
	for i, id := range diffIDs {
		m, err := s.complete(keys[i])
		if err != nil {
			return err
		}
		if m.DiffID != id {
			return fmt.Errorf("layer %s: %w: its diff id is %q and not %s", keys[i], ErrIncomplete, m.DiffID, id)
		}
		u.layers = append(u.layers, &unpacked{key: keys[i], meta: m})
	}
	top := u.layers[len(u.layers)-1]
	var err error
	if top.chain, err = chainID(diffIDs); err != nil {
		return err
	}
	if top.diffHex, err = digestHex(diffIDs[len(diffIDs)-1]); err != nil {
		return err
	}
	// The lock owns the staging directory that the chain is written in.
	unlock, err := lockfile.Lock(ctx, filepath.Join(s.dir, ".locks", lockName(top.diffHex)))
	if err != nil {
		return err
	}
	defer unlock()
	return s.writeChain(top, u.chain(), atomicfile.Durable)
}

// RootOf are the attributes of a layer's root directory as it lies there.
func RootOf(fsDir string) (*RootAttr, error) {
	var st unix.Stat_t
	if err := unix.Lstat(fsDir, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", fsDir, err)
	}
	return &RootAttr{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}, nil
}

// Made lists the layers that builds made, with their Meta; damaged ones are
// left out.
func (s *Store) Made() (map[string]Meta, error) {
	keys, err := s.keys()
	if err != nil {
		return nil, err
	}
	list := map[string]Meta{}
	for _, key := range keys {
		if !IsMade(key) {
			continue
		}
		m, err := s.readMeta(key)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrIncomplete) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list[key] = m
	}
	return list, nil
}
