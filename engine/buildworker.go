package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"nook/build"
	"nook/images"
	"nook/images/layers"
	"nook/images/registry"
	"nook/internal/hint"
	"nook/internal/lockfile"
)

// A build's worker (build.Worker): see docs/design/build.md. What it keeps is
// in the data root:
//
//	layers/build-N/fs    what a step wrote: an upper directory, or files copied;
//	                     a layer like any other, with a name of its own
//	build/cache/KEY.json the layers that the step of a key ends with
//	build/.staging/N/    a step under way; locked by its process
//	build/mounts/        RUN --mount=type=cache
//	build/contexts/      digests of files that were read before
//	build/running/N      a build under way; locked by its process
type worker struct {
	e    *Engine
	dir  string // build/
	note func(string)
	now  func() time.Time // what files and the history get
	// again says that nothing that is remembered of files counts.
	again bool
	temp  string // on the data root's file system, of this build alone

	mu    sync.Mutex
	whole map[string]bool // layers that were looked at
	pins  []func()
	memos map[string]*memo        // by directory
	bases map[string]*images.Held // by manifest digest
	// unsure are states of a context that changed while it was copied.
	unsure map[string]bool
	// remote are layers of other caches, by the names that Stack gave them.
	remote map[string]*remoteLayer
	// packed are layers that were packed to be sent, or came so, in the
	// directory packs.
	packed map[string]packedFile
	packs  *staged
	client *registry.Client
}

func buildDir(root string) string { return filepath.Join(root, "build") }

// newWorker registers a build, which has to be closed.
func (e *Engine) newWorker(ctx context.Context) (*worker, error) {
	w := &worker{e: e, dir: buildDir(e.root), note: func(text string) { e.note("%s", text) }, now: time.Now,
		whole: map[string]bool{}, unsure: map[string]bool{}, memos: map[string]*memo{}, bases: map[string]*images.Held{},
		remote: map[string]*remoteLayer{}, packed: map[string]packedFile{}}
	for _, name := range []string{"cache", ".staging", "mounts", "contexts", "running"} {
		if err := os.MkdirAll(filepath.Join(w.dir, name), 0o700); err != nil {
			return nil, e.noRoom(fmt.Errorf("build: %w", err))
		}
	}
	if err := e.sweepBuilds(ctx); err != nil {
		return nil, err
	}
	release, err := e.runningBuild()
	if err != nil {
		return nil, e.noRoom(err)
	}
	w.pins = append(w.pins, release)
	return w, nil
}

func (w *worker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.memos {
		m.save()
	}
	for _, release := range w.pins {
		release()
	}
	w.pins = nil
	if w.packs != nil {
		w.packs.close()
	}
	if w.client != nil {
		w.client.Close()
	}
}

// runningBuild says that a build is under way: what it made, or found in the
// cache, since then is not pruned.
func (e *Engine) runningBuild() (release func(), err error) {
	dir := filepath.Join(buildDir(e.root), "running")
	// The lock of the directory covers the moment in which a file has none.
	done, err := lockfile.RLock(context.Background(), filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	defer done()
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return nil, fmt.Errorf("build: %w", err)
	}
	name := f.Name()
	_ = f.Close()
	unlock, err := lockfile.TryLock(name)
	if err != nil {
		_ = os.Remove(name)
		return nil, fmt.Errorf("build: %w", err)
	}
	return func() {
		_ = os.Remove(name)
		unlock()
	}, nil
}

// oldestBuild is when the oldest build under way began; far in the future
// where there is none. What the dead left is removed.
func (e *Engine) oldestBuild() time.Time {
	oldest := time.Unix(1<<40, 0)
	dir := filepath.Join(buildDir(e.root), "running")
	unlock, err := lockfile.Lock(context.Background(), filepath.Join(dir, ".lock"))
	if err == nil {
		defer unlock()
	}
	settled := err == nil // else whoever has no lock may be about to get it
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		info, err := entry.Info()
		if err != nil || strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if settled {
			if unlock, err := lockfile.TryLock(name); err == nil {
				_ = os.Remove(name)
				unlock()
				continue
			}
		}
		if info.ModTime().Before(oldest) {
			oldest = info.ModTime()
		}
	}
	return oldest
}

// Base finds an image.
func (w *worker) Base(ctx context.Context, spec build.BaseSpec) (build.Base, error) {
	img, config, err := w.baseImage(ctx, spec)
	if err != nil {
		return build.Base{}, err
	}
	if err := w.hold(img); err != nil {
		return build.Base{}, err
	}
	b := build.Base{Image: img, Config: config, Digest: img.Manifest.Digest}
	if len(config.RootFS.DiffIDs) == 0 {
		return b, nil
	}
	release, err := w.e.layers.Pin(ctx, config.RootFS.DiffIDs)
	if err != nil {
		return build.Base{}, w.e.noRoom(err)
	}
	w.mu.Lock()
	w.pins = append(w.pins, release)
	w.mu.Unlock()
	chain, err := w.e.chain(ctx, img, config)
	if err != nil {
		return build.Base{}, err
	}
	// What a layer above hides wholly is not stacked at all.
	b.State = build.State{Layers: chain.Keys[chain.Hidden:]}
	return b, nil
}

// hold keeps an image of use to this build, whoever removes it meanwhile.
func (w *worker) hold(img images.Image) error {
	held, err := w.e.images.Hold(img, w.temp)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bases[img.Manifest.Digest] = held
	return nil
}

func (w *worker) held(img images.Image) *images.Held {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bases[img.Manifest.Digest]
}

func (w *worker) baseImage(ctx context.Context, spec build.BaseSpec) (images.Image, *images.ImageConfig, error) {
	o := RunOptions{Image: spec.Ref, Pull: PullPolicy(spec.Pull), PullOptions: PullOptions{Platform: spec.Platform}}
	img, err := w.e.imageOf(ctx, o)
	if err != nil {
		return img, nil, err
	}
	config, err := w.e.images.Config(img)
	if err != nil || spec.Platform == "" || images.ForPlatform(config, spec.Platform) {
		return img, config, err
	}
	// The name has another machine's image here.
	if o.Pull == PullNever {
		return img, nil, hint.Errorf("leave out --pull=never", "image %s is for %s, and %s is wanted", spec.Ref, config.Platform(), spec.Platform)
	}
	o.Pull = PullAlways
	if img, err = w.e.imageOf(ctx, o); err != nil {
		return img, nil, err
	}
	config, err = w.e.images.Config(img)
	return img, config, err
}

// lowers are a state's layers as overlayfs and layers.View want them, topmost
// first.
func (w *worker) lowers(s build.State) []string { return topFirst(s.Layers) }

// have tells whether a layer is there with all its parts.
func (w *worker) have(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.whole[key] {
		_, err := w.e.layers.Meta(key)
		w.whole[key] = err == nil
	}
	return w.whole[key]
}

// place makes a layer of a step's directory, on top of a state.
func (w *worker) place(ctx context.Context, st *staged, below build.State, meta layers.Meta) (build.State, error) {
	done, err := w.e.layers.Use(ctx)
	if err != nil {
		return build.State{}, w.e.noRoom(err)
	}
	defer done()
	if !st.linked {
		if meta.Root, err = layers.RootOf(filepath.Join(st.dir, "fs")); err != nil {
			return build.State{}, err
		}
	}
	key, err := w.e.layers.Place(st.dir, meta)
	if err != nil {
		return build.State{}, w.e.noRoom(err)
	}
	w.mu.Lock()
	w.whole[key] = true
	w.mu.Unlock()
	st.dir = ""
	return build.State{Layers: append(below.Layers[:len(below.Layers):len(below.Layers)], key)}, nil
}

// staged is a directory for a step under way.
type staged struct {
	e      *Engine
	dir    string // "" once it has become a layer
	linked bool   // it says nothing of /, whatever it will be put on: COPY --link
	unlock func()
}

// stageStep makes one, with an empty fs.
func (e *Engine) stageStep() (*staged, error) {
	parent := filepath.Join(buildDir(e.root), ".staging")
	// The lock of the parent covers the moment in which a new one has none.
	ctx := context.Background()
	done, err := lockfile.RLock(ctx, filepath.Join(parent, ".lock"))
	if err != nil {
		return nil, e.noRoom(err)
	}
	defer done()
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, e.noRoom(fmt.Errorf("build: %w", err))
	}
	unlock, err := lockfile.TryLock(dir + ".lock")
	if err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("build: %w", err)
	}
	st := &staged{e: e, dir: dir, unlock: func() {
		_ = os.Remove(dir + ".lock")
		unlock()
	}}
	if err := os.Mkdir(filepath.Join(dir, "fs"), 0o755); err != nil {
		st.close()
		return nil, e.noRoom(fmt.Errorf("build: %w", err))
	}
	return st, nil
}

// close removes what did not become a layer.
func (st *staged) close() {
	if st.dir != "" {
		if err := st.e.removeTrees(context.Background(), st.dir); err != nil {
			st.e.note("what a step left is still there: %v", err)
		}
	}
	st.unlock()
}

// removeTrees removes directories whose files may belong to ids of the user
// namespace.
func (e *Engine) removeTrees(ctx context.Context, dirs ...string) error {
	var left []string
	for _, dir := range dirs {
		if os.RemoveAll(dir) != nil {
			left = append(left, dir)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return e.stage(ctx, request{Build: &buildJob{Do: jobRemove, Paths: left}}, nil)
}

// sweepBuilds removes the steps of builds that were killed.
func (e *Engine) sweepBuilds(ctx context.Context) error {
	return e.deadSteps(ctx, func(dirs []string) error { return e.removeTrees(ctx, dirs...) })
}

// deadSteps calls f with the directories of steps whose builds were killed,
// locked, if there are any.
func (e *Engine) deadSteps(ctx context.Context, f func(dirs []string) error) error {
	parent := filepath.Join(buildDir(e.root), ".staging")
	entries, err := os.ReadDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep builds: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	if len(names) == 0 {
		return nil
	}
	done, err := lockfile.Lock(ctx, filepath.Join(parent, ".lock"))
	if err != nil {
		return err
	}
	defer done()
	var gone []string
	var unlocks []func()
	defer func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}()
	for _, name := range names {
		dir := filepath.Join(parent, name)
		if _, err := os.Lstat(dir); err != nil {
			continue
		}
		unlock, err := lockfile.TryLock(dir + ".lock")
		if err != nil {
			continue
		}
		gone = append(gone, dir)
		unlocks = append(unlocks, func() {
			_ = os.Remove(dir + ".lock")
			unlock()
		})
	}
	if len(gone) == 0 {
		return nil
	}
	return f(gone)
}
