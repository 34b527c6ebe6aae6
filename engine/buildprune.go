package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nook/internal/lockfile"
)

// CachedStep is a step that a build finds in the cache.
type CachedStep struct {
	ID       string
	Step     string // as progress showed it
	Kind     string
	Size     int64 // of what it added, in bytes
	Created  time.Time
	LastUsed time.Time
	// InImage: what it added is a layer of an image too, and takes no room of
	// its own.
	InImage bool

	file   string
	layers []string
}

// BuildCache lists the steps that are in the cache, the one that was used last
// being the last.
func (e *Engine) BuildCache(ctx context.Context) ([]CachedStep, error) {
	files, err := e.cacheFiles()
	if err != nil {
		return nil, err
	}
	made, err := e.layers.Made()
	if err != nil {
		return nil, err
	}
	ofImages, err := e.imageLayers(ctx)
	if err != nil {
		return nil, err
	}
	var list []CachedStep
	for file, c := range files {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		s := CachedStep{
			ID: strings.TrimSuffix(filepath.Base(file), ".json")[:25], Step: c.Step, Kind: c.Kind,
			Created: c.Created, LastUsed: info.ModTime(), file: file, layers: c.Layers,
		}
		if n := len(c.Layers); n > 0 {
			s.Size, s.InImage = made[c.Layers[n-1]].Bytes, ofImages[c.Layers[n-1]]
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b CachedStep) int {
		if c := a.LastUsed.Compare(b.LastUsed); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// imageLayers are the keys of the layers of all images that can be read. Of
// others nothing goes either: see Engine.wanted.
func (e *Engine) imageLayers(ctx context.Context) (map[string]bool, error) {
	keys := map[string]bool{}
	list, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, img := range list {
		cfg, err := e.images.Config(img)
		if err != nil {
			continue
		}
		if chain, err := e.layers.Chain(cfg.RootFS.DiffIDs); err == nil {
			for _, key := range chain.Keys {
				keys[key] = true
			}
		}
	}
	return keys, nil
}

// BuildPruneOptions say what PruneBuilds removes.
type BuildPruneOptions struct {
	// All removes what images have a layer of too: to build them again takes
	// all steps.
	All bool
	// Until leaves what was used after it; zero: nothing is left.
	Until time.Time
	// Keep is how many bytes of the cache stay, those used last; 0: none.
	Keep int64
}

// PrunedBuilds is what PruneBuilds did.
type PrunedBuilds struct {
	IDs   []string
	Bytes int64
}

// PruneBuilds removes steps from the cache, and the mounts of RUN
// --mount=type=cache. What a build under way made or found stays.
func (e *Engine) PruneBuilds(ctx context.Context, o BuildPruneOptions) (PrunedBuilds, error) {
	var done PrunedBuilds
	list, err := e.BuildCache(ctx)
	if err != nil {
		return done, err
	}
	unlock := func() {}
	if len(list) > 0 {
		if unlock, err = lockfile.Lock(ctx, e.cacheLock()); err != nil {
			return done, err
		}
	}
	defer unlock()
	// A build that begins from now on finds what is left.
	began := e.oldestBuild()
	late := func(t time.Time) bool { return !t.Before(began) || !o.Until.IsZero() && t.After(o.Until) }
	var size int64
	names := map[string]int{} // keys that lead to a layer
	for _, s := range list {
		if n := len(s.layers); n > 0 && !s.InImage {
			if names[s.layers[n-1]]++; names[s.layers[n-1]] == 1 {
				size += s.Size
			}
		}
	}
	for _, s := range list {
		if info, err := os.Stat(s.file); err == nil {
			s.LastUsed = info.ModTime() // it may have been used since
		}
		if late(s.LastUsed) || s.InImage && !o.All || o.Keep > 0 && size <= o.Keep {
			continue
		}
		if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return done, fmt.Errorf("prune the build cache: %w", err)
		}
		if n := len(s.layers); n > 0 && !s.InImage {
			if names[s.layers[n-1]]--; names[s.layers[n-1]] == 0 {
				size -= s.Size
			}
		}
		done.IDs = append(done.IDs, s.ID)
	}
	unlock() // once more at the end does nothing
	e.sweepCache()
	if o.Keep == 0 {
		if err := e.pruneMounts(ctx, late, &done); err != nil {
			return done, err
		}
	}
	if err := e.sweepBuilds(ctx); err != nil {
		return done, err
	}
	freed, err := e.collect(ctx)
	done.Bytes += freed
	return done, err
}

// pruneMounts removes cache mounts that no build uses, and what was remembered
// of contexts.
func (e *Engine) pruneMounts(ctx context.Context, late func(time.Time) bool, done *PrunedBuilds) error {
	parent := filepath.Join(buildDir(e.root), "mounts")
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune cache mounts: %w", err)
	}
	for _, entry := range entries {
		dir := filepath.Join(parent, entry.Name())
		lock, err := os.Stat(dir + ".lock")
		if !entry.IsDir() || err != nil || late(lock.ModTime()) {
			continue
		}
		unlock, err := lockfile.TryLock(dir + ".lock")
		if errors.Is(err, lockfile.ErrHeld) {
			continue
		}
		if err != nil {
			return err
		}
		size, _ := countFiles(ctx, filepath.Join(dir, "fs"))
		err = e.removeTrees(ctx, dir)
		unlock()
		if err != nil {
			return fmt.Errorf("prune cache mounts: %w", err)
		}
		done.IDs = append(done.IDs, entry.Name()[:25])
		done.Bytes += size
	}
	files, _ := filepath.Glob(filepath.Join(buildDir(e.root), "contexts", "*"))
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && !late(info.ModTime()) {
			_ = os.Remove(file)
		}
	}
	return nil
}

// buildUsage is what the cache takes besides what images have.
func (e *Engine) buildUsage(ctx context.Context) (Usage, error) {
	list, err := e.BuildCache(ctx)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Total: len(list)}
	counted := map[string]bool{}
	for _, s := range list {
		if s.InImage {
			u.Active++
		} else if n := len(s.layers); n > 0 && !counted[s.layers[n-1]] {
			counted[s.layers[n-1]] = true
			u.Size += s.Size
		}
	}
	dirs, _ := filepath.Glob(filepath.Join(buildDir(e.root), "mounts", "*", "fs"))
	for _, dir := range dirs {
		// What belongs to other ids behind a closed directory isn't counted.
		n, _ := countFiles(ctx, dir)
		u.Total++
		u.Size += n
	}
	u.Reclaimable = u.Size
	return u, nil
}
