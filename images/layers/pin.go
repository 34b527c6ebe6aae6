package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nook/internal/lockfile"
)

// Who is to be safe from Collect before an image or a container says so:
//
//	Use      a shared lock, for the moment from finding a chain to writing a
//	         container's record
//	Pin      a file .locks/pins/N that lists diff ids, for as long as it is locked:
//	         from unpacking to the image's entry in the index
//	Collect  the exclusive lock, while it decides and takes names away; not
//	         while it removes files
//
// So nobody waits for a download or for the removal of a large layer.

const (
	useLock = "use"
	pinsDir = ".locks/pins"
)

// Use holds off collections until done is called, which may be twice. What is
// found in the store meanwhile stays. It doesn't wait for other users.
func (s *Store) Use(ctx context.Context) (done func(), err error) {
	name := filepath.Join(s.dir, ".locks", useLock)
	done, err = lockfile.RLock(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeDirs(); err != nil {
			return nil, err
		}
		done, err = lockfile.RLock(ctx, name)
	}
	return done, err
}

// Pin keeps layers that are here, or come, from collections until release or
// the end of this process.
func (s *Store) Pin(ctx context.Context, diffIDs []string) (release func(), err error) {
	done, err := s.Use(ctx) // it isn't looked at before it is whole
	if err != nil {
		return nil, err
	}
	defer done()
	dir := filepath.Join(s.dir, pinsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pin layers: %w", err)
	}
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return nil, fmt.Errorf("pin layers: %w", err)
	}
	name := f.Name()
	err = errors.Join(json.NewEncoder(f).Encode(diffIDs), f.Close())
	var unlock func()
	if err == nil {
		unlock, err = lockfile.TryLock(name)
	}
	if err != nil {
		_ = os.Remove(name)
		return nil, fmt.Errorf("pin layers: %w", err)
	}
	return func() {
		_ = os.Remove(name)
		unlock()
	}, nil
}

// pinned reads the diff ids of the pins of living processes, and removes those
// of the dead. The caller has the exclusive lock.
func (s *Store) pinned() (map[string]bool, error) {
	ids := make(map[string]bool)
	entries, err := os.ReadDir(filepath.Join(s.dir, pinsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pins: %w", err)
	}
	for _, entry := range entries {
		name := filepath.Join(s.dir, pinsDir, entry.Name())
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read pins: %w", err)
		}
		unlock, err := lockfile.TryLock(name)
		if err == nil {
			_ = os.Remove(name)
			unlock()
			continue
		}
		if !errors.Is(err, lockfile.ErrHeld) {
			return nil, fmt.Errorf("read pins: %w", err)
		}
		var list []string
		if err := json.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("read pins %s: %w", name, err)
		}
		for _, id := range list {
			ids[id] = true
		}
	}
	return ids, nil
}

func (s *Store) makeDirs() error {
	for _, dir := range []string{".staging", ".locks", "chains"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o700); err != nil {
			return fmt.Errorf("make layer store: %w", err)
		}
	}
	return nil
}

// Keep is what a collection leaves: layers by key, chains by their top's chain
// id in hexadecimal.
type Keep struct {
	Keys   map[string]bool
	Chains map[string]bool
	// Unread is why nobody knows what some image has: then nothing goes.
	Unread error
}

// KeepChain keeps the chain of an image with its layers, as far as they are
// here. An image may have none.
func (s *Store) KeepChain(keep Keep, diffIDs []string) error {
	if len(diffIDs) == 0 {
		return nil
	}
	id, err := chainID(diffIDs)
	if err != nil {
		return err
	}
	keep.Chains[id] = true
	c, err := readChain(s.chainPath(id))
	if err != nil {
		return nil //nolint:nilerr // not unpacked, or damaged: unpacking again mends that
	}
	for _, key := range c.Keys {
		keep.Keys[key] = true
	}
	return nil
}

// Collected is what Collect removed.
type Collected struct {
	Keys  []string
	Bytes int64 // of the layers' files
}

// Collect removes the layers and chains that nobody keeps. wanted is asked once
// no Use is under way and the pins are read; what it doesn't name and nobody
// pins goes. It runs in a stage: the directories belong to ids of containers
// and may have no mode bits at all.
func (s *Store) Collect(ctx context.Context, wanted func() (Keep, error)) (Collected, error) {
	var done Collected
	if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return done, nil
	}
	if err := s.makeDirs(); err != nil {
		return done, err
	}
	away, err := s.takeAway(ctx, wanted, &done)
	for _, dir := range away {
		if removeErr := os.RemoveAll(dir); err == nil && removeErr != nil {
			err = fmt.Errorf("remove layer: %w", removeErr)
		}
	}
	_ = s.ledger().Forget(ctx, s.hasFile) // what isn't forgotten takes room alone
	return done, err
}

// takeAway renames what is to go into .staging, where Sweep finds it if this
// process is killed.
func (s *Store) takeAway(ctx context.Context, wanted func() (Keep, error), done *Collected) (away []string, err error) {
	unlock, err := lockfile.Lock(ctx, filepath.Join(s.dir, ".locks", useLock))
	if err != nil {
		return nil, err
	}
	defer unlock()
	// In this order: who lets go of a pin has the image in the index by then.
	pinned, err := s.pinned()
	if err != nil {
		return nil, err
	}
	keep, err := wanted()
	if err != nil || keep.Unread != nil {
		return nil, err
	}
	keys, err := s.keys()
	if err != nil {
		return nil, err
	}
	gone := map[string]Meta{}
	for _, key := range keys {
		meta, err := s.readMeta(key)
		if !keep.Keys[key] && (err != nil || !pinned[meta.DiffID]) {
			gone[key] = meta
		}
	}
	// A chain goes before its layers, so that none is found without them.
	if err := s.removeChains(ctx, func(id string, c *Chain) bool {
		for _, key := range c.Keys {
			if _, dead := gone[key]; dead {
				return true
			}
		}
		return !keep.Chains[id] && !s.allPinned(c, pinned)
	}); err != nil {
		return nil, err
	}
	for key, meta := range gone {
		dir, err := s.moveAway(key, meta)
		if err != nil {
			return away, err
		}
		if dir != "" {
			away = append(away, dir)
			done.Keys = append(done.Keys, key)
			done.Bytes += meta.Bytes
		}
	}
	return away, nil
}

func (s *Store) allPinned(c *Chain, pinned map[string]bool) bool {
	for _, key := range c.Keys {
		if meta, err := s.readMeta(key); err != nil || !pinned[meta.DiffID] {
			return false
		}
	}
	return true
}

// moveAway gives "" for a layer that stays because somebody is unpacking it, or
// has just found it.
func (s *Store) moveAway(key string, meta Meta) (string, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(key, "chain-"), madePrefix)
	if d, err := digestHex(meta.DiffID); err == nil {
		digits = d
	}
	unlock, err := lockfile.TryLock(filepath.Join(s.dir, ".locks", lockName(digits)))
	if errors.Is(err, lockfile.ErrHeld) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("remove layer: %w", err)
	}
	defer unlock()
	if used, err := s.inChain(key); used || err != nil {
		return "", err
	}
	return s.retire(key, digits)
}

// retire moves a layer's directory, or whatever has its name, into .staging.
// The caller has the layer's lock.
func (s *Store) retire(key, digits string) (string, error) {
	away, err := os.MkdirTemp(filepath.Join(s.dir, ".staging"), digits+"-")
	if err != nil {
		return "", fmt.Errorf("remove layer: %w", err)
	}
	err = os.Rename(s.layerPath(key), filepath.Join(away, "old"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(away)
		return "", fmt.Errorf("remove layer: %w", err)
	}
	return away, nil
}
