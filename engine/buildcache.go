package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nook/build"
	"nook/images/layers"
	"nook/internal/atomicfile"
	"nook/internal/lockfile"
)

// cached is a file of build/cache. Its time of modification is when it was
// last used.
type cached struct {
	Version int       `json:"version"`
	Layers  []string  `json:"layers"`
	Step    string    `json:"step,omitempty"`
	Kind    string    `json:"kind,omitempty"`
	Created time.Time `json:"created"`
}

const cacheVersion = 1

// cacheFile is where a key's state is kept, whatever characters the key has.
func (w *worker) cacheFile(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(w.dir, "cache", hex.EncodeToString(sum[:])+".json")
}

// cacheLock is the lock that builds share while they look at the cache: what
// one of them found is seen by a prune to be in use, or was gone.
func (e *Engine) cacheLock() string { return filepath.Join(buildDir(e.root), "cache", ".lock") }

// Lookup finds a state in the cache.
func (w *worker) Lookup(key string) (build.State, bool) {
	unlock, err := lockfile.RLock(context.Background(), w.e.cacheLock())
	if err != nil {
		return build.State{}, false
	}
	defer unlock()
	file := w.cacheFile(key)
	c, err := readCached(file)
	if err != nil {
		return build.State{}, false
	}
	for _, layer := range c.Layers {
		if !w.have(layer) {
			return build.State{}, false
		}
	}
	now := time.Now()
	if os.Chtimes(file, now, now) != nil {
		return build.State{}, false
	}
	return build.State{Layers: c.Layers}, true
}

func readCached(file string) (cached, error) {
	var c cached
	data, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read %s: %w", file, err)
	}
	if c.Version != cacheVersion {
		return c, fmt.Errorf("read %s: version %d is not known", file, c.Version)
	}
	if c.Layers == nil { // an empty state has a list, too
		return c, fmt.Errorf("read %s: it tells no layers", file)
	}
	return c, nil
}

// Remember puts a state into the cache.
func (w *worker) Remember(key string, state build.State, info build.CacheInfo) error {
	w.mu.Lock()
	unsure := w.unsure[top(state)]
	w.mu.Unlock()
	if unsure {
		return nil
	}
	unlock, err := lockfile.RLock(context.Background(), w.e.cacheLock())
	if err != nil {
		return w.e.noRoom(fmt.Errorf("remember a step: %w", err))
	}
	defer unlock()
	c := cached{Version: cacheVersion, Layers: append([]string{}, state.Layers...), Step: info.Step, Kind: info.Kind, Created: time.Now().UTC()}
	// Of what a power cut leaves, what isn't whole is no cache.
	if err := atomicfile.WriteJSON(w.cacheFile(key), c, 0o600, atomicfile.Volatile); err != nil {
		return w.e.noRoom(fmt.Errorf("remember a step: %w", err))
	}
	return nil
}

// sweepCache removes the files that were cut short as their build was killed.
// Who writes one has the lock.
func (e *Engine) sweepCache() {
	cut, _ := filepath.Glob(filepath.Join(buildDir(e.root), "cache", ".*.tmp-*"))
	if len(cut) == 0 {
		return
	}
	unlock, err := lockfile.TryLock(e.cacheLock())
	if err != nil {
		return
	}
	defer unlock()
	for _, name := range cut {
		_ = os.Remove(name) // it takes little room
	}
}

func top(s build.State) string {
	if len(s.Layers) == 0 {
		return ""
	}
	return s.Layers[len(s.Layers)-1]
}

// cacheFiles lists the cache.
func (e *Engine) cacheFiles() (map[string]cached, error) {
	files, err := filepath.Glob(filepath.Join(buildDir(e.root), "cache", "*.json"))
	if err != nil {
		return nil, err
	}
	list := map[string]cached{}
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(file), ".") {
			continue
		}
		if c, err := readCached(file); err == nil {
			list[file] = c
		}
	}
	return list, nil
}

// keepBuilds adds the layers that the cache and builds under way need.
func (e *Engine) keepBuilds(keep layers.Keep) error {
	list, err := e.cacheFiles()
	if err != nil {
		return err
	}
	for _, c := range list {
		for _, key := range c.Layers {
			keep.Keys[key] = true
		}
	}
	made, err := e.layers.Made()
	if err != nil {
		return err
	}
	began := e.oldestBuild()
	for key, meta := range made {
		if !meta.Made.Placed.Before(began) {
			keep.Keys[key] = true
		}
	}
	return nil
}
