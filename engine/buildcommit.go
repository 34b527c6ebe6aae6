package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"nook/build"
	"nook/images"
	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/treetar"
)

// committing is one Commit.
type committing struct {
	w     *worker
	spec  build.CommitSpec
	into  func(ctx context.Context, o images.AssembleOptions) (images.Image, error)
	keys  []string // of the layers on top of the base
	mu    sync.Mutex
	metas map[string]layers.Meta
	lacks map[string]bool // see layers.MadeBlob
}

// Commit makes an image of a state.
func (w *worker) Commit(ctx context.Context, spec build.CommitSpec) (images.Image, error) {
	return w.assemble(ctx, spec, func(ctx context.Context, o images.AssembleOptions) (images.Image, error) {
		img, err := w.e.images.Assemble(ctx, o)
		if err != nil {
			err = w.e.noRoom(err)
		}
		return img, err
	})
}

// Save writes the image of a state as an archive.
func (w *worker) Save(ctx context.Context, spec build.CommitSpec, format string, out io.Writer) (images.Image, error) {
	// What docker, podman, skopeo and umoci read is both at once.
	if format != "docker" && format != "oci" {
		return images.Image{}, fmt.Errorf("save: format %q is not known", format)
	}
	return w.assemble(ctx, spec, func(ctx context.Context, o images.AssembleOptions) (images.Image, error) {
		return w.e.images.Archive(ctx, o, out)
	})
}

// assemble gives into what an image of a state is made of.
func (w *worker) assemble(ctx context.Context, spec build.CommitSpec,
	into func(context.Context, images.AssembleOptions) (images.Image, error),
) (_ images.Image, err error) {
	if spec.State, err = w.local(ctx, spec.State); err != nil {
		return images.Image{}, err
	}
	c := &committing{w: w, spec: spec, into: into, metas: map[string]layers.Meta{}, lacks: map[string]bool{}}
	o := images.AssembleOptions{Config: spec.Config, Names: spec.Names, Epoch: spec.Epoch.Epoch}
	below := 0
	if spec.Base != nil {
		o.Base, below = w.held(spec.Base.Image), len(spec.Base.State.Layers)
		o.Config.History = append(slices.Clone(spec.Base.Config.History), spec.History...)
	} else {
		o.Config.History = slices.Clone(spec.History)
	}
	if below > len(spec.State.Layers) {
		return images.Image{}, errors.New("commit: the state is not on top of its base")
	}
	c.keys = spec.State.Layers[below:]
	for i, key := range c.keys {
		meta, err := w.e.layers.Meta(key)
		if err != nil {
			return images.Image{}, fmt.Errorf("commit: %w", err)
		}
		c.metas[key] = meta
		o.Layers = append(o.Layers, c.layer(ctx, key, meta, spec.State.Layers[:below+i]))
	}
	if len(o.Config.RootFS.DiffIDs) == 0 && o.Config.OS == "" {
		p := images.HostPlatform()
		o.Config.OS, o.Config.Architecture, o.Config.Variant = p.OS, p.Architecture, p.Variant
	}
	o.Config.Created = nil
	if spec.Squash && len(c.keys) > 0 {
		return c.squash(ctx, o)
	}
	pins := w.e.pins(ctx)
	defer pins.release()
	o.Packed = func(list []images.PackedLayer) error { return c.packed(ctx, pins, list) }
	o.Keep, o.Unpack = c.keep, c.unpack
	return into(ctx, o)
}

// keep keeps what was packed for an archive as long as the build lives: another
// archive takes it as it is, and so does a cache.
func (c *committing) keep(layer int, p images.PackedLayer, path string) {
	key := c.keys[layer]
	w := c.w
	dir, err := w.packDir()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	own := filepath.Join(dir, key)
	if w.unsure[key] || w.packed[key].path != "" || os.Link(path, own) != nil {
		return
	}
	w.packed[key] = packedFile{PackedLayer: p, path: own, lacks: c.lacks[key]}
}

// layer is a step's layer as images wants it.
func (c *committing) layer(ctx context.Context, key string, meta layers.Meta, below []string) images.NewLayer {
	l := images.NewLayer{Open: func() (io.ReadCloser, error) {
		dirs := append([]string{key}, topFirst(below)...)
		return c.w.e.stageOutput(ctx, &buildJob{Do: jobLayer, Layers: dirs}, func(size int64, lacks bool) { c.size(key, size, lacks) })
	}}
	if made := meta.Made; made != nil {
		l.Time = made.Time
		if b := made.Blob; b != nil {
			l.Before = &images.PackedLayer{
				Blob:   images.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size},
				DiffID: meta.DiffID, Empty: b.Empty,
			}
		}
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if p := c.w.packed[key]; p.path != "" {
		l.Before, l.File = &p.PackedLayer, p.path
		c.lacks[key] = p.lacks
	}
	return l
}

// size notes how many bytes a layer's files have, and whether all are packed.
func (c *committing) size(key string, n int64, lacks bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	meta := c.metas[key]
	meta.Bytes = n
	c.metas[key], c.lacks[key] = meta, lacks
}

// packed writes down what the layers became, so that they are layers like any
// others: found by their diff ids, and not packed again.
func (c *committing) packed(ctx context.Context, pins *pins, list []images.PackedLayer) error {
	var ids []string
	news := map[string]layers.Meta{}
	for i, p := range list {
		if !p.Empty {
			ids = append(ids, p.DiffID)
		}
		key := c.keys[i]
		meta := c.metas[key]
		if meta.Made == nil || meta.Made.Blob != nil && meta.Made.Blob.Digest == p.Blob.Digest && meta.Made.Boot == "" {
			continue
		}
		made := *meta.Made
		made.Blob = &layers.MadeBlob{Digest: p.Blob.Digest, Size: p.Blob.Size, MediaType: p.Blob.MediaType, Empty: p.Empty, Lacks: c.lacks[key]}
		meta.DiffID, meta.Made = p.DiffID, &made
		news[key] = meta
		c.metas[key] = meta
	}
	if len(ids) > 0 {
		release, err := c.w.e.layers.Pin(ctx, ids)
		if err != nil {
			return err
		}
		pins.held = append(pins.held, release)
	}
	if len(news) == 0 {
		return nil
	}
	if err := c.w.e.layers.Flush(); err != nil {
		return err
	}
	return c.w.e.layers.Packed(news)
}

// unpack is an images.UnpackFunc: the layers are here.
func (c *committing) unpack(ctx context.Context, img images.Image, list []images.Layer) error {
	if len(list) == 0 {
		return nil
	}
	var keys []string
	if base := c.spec.Base; base != nil && len(base.Config.RootFS.DiffIDs) > 0 {
		chain, err := c.w.e.layers.Chain(base.Config.RootFS.DiffIDs)
		if errors.Is(err, layers.ErrNotUnpacked) {
			return c.w.e.unpack(ctx, img, list)
		}
		if err != nil {
			return err
		}
		keys = chain.Keys
	}
	adopt := c.w.e.layers.Adopt
	for _, key := range c.keys {
		made := c.metas[key].Made
		packed := made != nil && made.Blob != nil
		if packed && made.Blob.Lacks {
			// Who gets the image gets what was packed, and so does who built it.
			adopt = func(context.Context, []string, []string) error { return c.w.e.unpack(ctx, img, list) }
		}
		if !packed || !made.Blob.Empty {
			keys = append(keys, key)
		}
	}
	ids := diffIDs(list)
	if err := adopt(ctx, ids, keys); err != nil {
		return err
	}
	return c.w.e.countLayers(list, ids)
}

// stageOutput is what a stage of a build writes.
func (e *Engine) stageOutput(ctx context.Context, job *buildJob, size func(n int64, lacks bool)) (io.ReadCloser, error) {
	var f fds
	defer f.close()
	r, w := f.pipe()
	if f.err != nil {
		return nil, f.err
	}
	widen(r)
	ctx, cancel := context.WithCancel(ctx)
	o := &output{pipe: f.file(r, "files of a step"), cancel: cancel, done: make(chan struct{}), close: func() {}}
	w = f.take(w)
	go func() {
		defer close(o.done)
		o.err = e.stageWith(ctx, request{Build: job}, outfitted{files: []int{w}}, func(ev event) {
			switch {
			case ev.Note != "":
				e.note("%s", ev.Note)
			case len(ev.Sizes) == 1 && size != nil:
				size(ev.Sizes[0], ev.Lacks)
			}
		})
	}()
	return o, nil
}

// Tar writes all files of a state.
func (w *worker) Tar(ctx context.Context, state build.State, epoch build.Epoch, out io.Writer) (err error) {
	if len(state.Layers) == 0 {
		return treetar.NewWriter(out).Close()
	}
	if state, err = w.local(ctx, state); err != nil {
		return err
	}
	in, err := w.e.stageOutput(ctx, &buildJob{Do: jobFiles, Layers: w.lowers(state), Epoch: epochOf(epoch)}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// Local writes all files of a state into a directory. They are the caller's.
func (w *worker) Local(ctx context.Context, state build.State, epoch build.Epoch, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	to, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer to.Close()
	r, pipe := io.Pipe()
	var all sync.WaitGroup
	all.Go(func() { _ = pipe.CloseWithError(w.Tar(ctx, state, epoch, pipe)) })
	_, err = treetar.Extract(ctx, r, to, treetar.Options{Note: w.note})
	if err == nil {
		_, err = io.Copy(io.Discard, r) // the padding of the archive
	}
	_ = r.CloseWithError(err)
	all.Wait()
	if isFull(err) {
		err = hint.Wrap(err, "make room on the file system of "+dir+", or write to another")
	}
	return err
}
