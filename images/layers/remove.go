package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nook/internal/atomicfile"
	"nook/internal/lockfile"
)

// Remove removes all layers that keep doesn't want, with the chains that have
// one of them. It runs in a stage: the directories belong to ids of containers
// and may have no mode bits at all. A layer that a container uses must be kept.
func (s *Store) Remove(ctx context.Context, keep func(key string) bool) error {
	keys, err := s.keys()
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	for _, key := range keys {
		if !keep(key) {
			gone[key] = true
		}
	}
	// A chain goes before its layers, so that none is found without them.
	if err := s.removeChains(ctx, func(c *Chain) bool {
		for _, key := range c.Keys {
			if gone[key] {
				return true
			}
		}
		return false
	}); err != nil {
		return err
	}
	for key := range gone {
		if err := s.removeLayer(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// RemoveChain forgets the chain of these diff ids. Its layers stay until
// Remove.
func (s *Store) RemoveChain(diffIDs []string) error {
	id, err := chainID(diffIDs)
	if err != nil {
		return err
	}
	if err := os.Remove(s.chainPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove chain: %w", err)
	}
	return nil
}

// Sweep removes what processes that are no more left half made. Those of
// living ones stay. It runs in a stage.
func (s *Store) Sweep() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, ".staging"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, e := range entries {
		if len(e.Name()) < len(lockName("00")) {
			continue
		}
		unlock, err := lockfile.TryLock(filepath.Join(s.dir, ".locks", lockName(e.Name())))
		if errors.Is(err, lockfile.ErrHeld) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		err = os.RemoveAll(filepath.Join(s.dir, ".staging", e.Name()))
		unlock()
		if err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// keys lists the layers.
func (s *Store) keys() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	var keys []string
	for _, e := range entries {
		if digits := strings.TrimPrefix(e.Name(), "chain-"); len(digits) == 64 {
			keys = append(keys, e.Name())
		}
	}
	return keys, nil
}

func (s *Store) removeChains(ctx context.Context, unwanted func(*Chain) bool) error {
	files, err := filepath.Glob(filepath.Join(s.dir, "chains", "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := readChain(file)
		if err == nil && !unwanted(&c) {
			continue
		}
		// One that can't be read is no use to anyone.
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove chain: %w", err)
		}
	}
	if len(files) == 0 {
		return nil
	}
	return atomicfile.SyncDir(filepath.Join(s.dir, "chains"))
}

// inChain says whether a chain has the layer.
func (s *Store) inChain(key string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "chains", "*.json"))
	if err != nil {
		return false, err
	}
	for _, file := range files {
		if c, err := readChain(file); err == nil && slices.Contains(c.Keys, key) {
			return true, nil
		}
	}
	return false, nil
}

// removeLayer takes the layer's name away first, so that a kill leaves no part
// of a layer under it.
func (s *Store) removeLayer(ctx context.Context, key string) error {
	digits := strings.TrimPrefix(key, "chain-")
	if meta, err := s.readMeta(key); err == nil {
		if d, err := digestHex(meta.DiffID); err == nil {
			digits = d
		}
	}
	unlock, err := lockfile.Lock(ctx, filepath.Join(s.dir, ".locks", lockName(digits)))
	if err != nil {
		return err
	}
	defer unlock()
	// Unpack, which holds the lock until its chain is written, may have found
	// the layer since keep was asked.
	if used, err := s.inChain(key); used || err != nil {
		return err
	}
	away, err := os.MkdirTemp(filepath.Join(s.dir, ".staging"), digits+"-")
	if err != nil {
		return fmt.Errorf("remove layer: %w", err)
	}
	if err := os.Rename(s.layerPath(key), filepath.Join(away, "old")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove layer: %w", err)
	}
	if err := os.RemoveAll(away); err != nil {
		return fmt.Errorf("remove layer: %w", err)
	}
	return nil
}
