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
		digits := strings.TrimPrefix(strings.TrimPrefix(e.Name(), "chain-"), madePrefix)
		if len(digits) == 64 {
			keys = append(keys, e.Name())
		}
	}
	return keys, nil
}

// removeChains removes those that are unwanted by their id and content.
func (s *Store) removeChains(ctx context.Context, unwanted func(id string, c *Chain) bool) error {
	files, err := filepath.Glob(filepath.Join(s.dir, "chains", "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := readChain(file)
		if err == nil && !unwanted(strings.TrimSuffix(filepath.Base(file), ".json"), &c) {
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
