package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"nook/build"
	"nook/images"
	"nook/images/layers"
	"nook/images/registry"
	"nook/internal/hint"
)

// A cache in a registry is an OCI manifest whose config is a cacheDocument and
// whose layers are those of the document: docs/design/build.md.
const (
	cacheManifestType = "application/vnd.oci.image.manifest.v1+json"
	cacheConfigType   = "application/vnd.nook.buildcache.config.v1+json"
	cacheDocumentSize = 16 << 20 // bytes
)

// cacheDocument says which steps a cache has.
type cacheDocument struct {
	Version int          `json:"version"`
	Layers  []cacheLayer `json:"layers"`
	// Steps are by key.
	Steps map[string]cacheStep `json:"steps"`
}

// documentVersion is that of a cacheDocument. In version 1 a step was the diff
// id alone, and the time stood with the layer: one for all its steps.
const documentVersion = 2

// cacheStep is a step of a cache.
type cacheStep struct {
	// DiffID is that of the layer that the step puts on top, "" for none.
	DiffID  string    `json:"diffID,omitempty"`
	Created time.Time `json:"created,omitzero"`
}

// UnmarshalJSON reads also what version 1 has.
func (s *cacheStep) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &s.DiffID)
	}
	type plain cacheStep
	return json.Unmarshal(data, (*plain)(s))
}

// cacheLayer is a layer of a cache, and the blob that has it.
type cacheLayer struct {
	DiffID string            `json:"diffID"`
	Blob   images.Descriptor `json:"blob"`
	// Created is of version 1.
	Created time.Time `json:"created,omitzero"`
	// Empty: without any entry, and without a blob in the registry.
	Empty bool `json:"empty,omitempty"`
}

// cacheSource is a cache that was read.
type cacheSource struct {
	ref    images.Reference
	repo   *registry.Repository
	layers map[string]cacheLayer // by diff id
}

// repository opens the one that a cache is in.
func (w *worker) repository(name string) (images.Reference, *registry.Repository, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	client, config, err := remotes(nil)
	if err != nil {
		return images.Reference{}, nil, err
	}
	if w.client == nil {
		w.client = client
	} else {
		client.Close()
	}
	ref, err := unalias(config, name)
	if err != nil {
		return ref, nil, err
	}
	repo, err := w.client.Repository(ref.Registry, ref.Path)
	return ref, repo, err
}

// ReadCache reads what a reference has of a cache.
func (w *worker) ReadCache(ctx context.Context, name string) (*build.RemoteCache, error) {
	ref, repo, err := w.repository(name)
	if err != nil {
		return nil, err
	}
	reference := ref.Tag
	if ref.Digest != "" {
		reference = ref.Digest
	}
	m, err := repo.Manifest(ctx, reference, []string{cacheManifestType})
	if err != nil {
		return nil, err
	}
	var manifest images.Manifest
	if err := json.Unmarshal(m.Body, &manifest); err != nil || m.MediaType != cacheManifestType || manifest.Config.MediaType != cacheConfigType {
		return nil, hint.Errorf("nook build --cache-to writes one", "it is none that nook build wrote")
	}
	var data bytes.Buffer
	if d := manifest.Config; d.Size <= 0 || d.Size > cacheDocumentSize {
		return nil, fmt.Errorf("the list of its steps has %d bytes, and may have %d", d.Size, cacheDocumentSize)
	}
	if err := repo.Blob(ctx, manifest.Config.Digest, manifest.Config.Size, 0, &data); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data.Bytes()); "sha256:"+hex.EncodeToString(sum[:]) != manifest.Config.Digest {
		return nil, fmt.Errorf("the list of its steps has another digest than %s", manifest.Config.Digest)
	}
	source := &cacheSource{ref: ref, repo: repo}
	steps, err := source.read(data.Bytes())
	if err != nil {
		return nil, err
	}
	return &build.RemoteCache{Ref: name, Steps: steps, Source: source}, nil
}

// read reads a cacheDocument, which anyone may have written.
func (c *cacheSource) read(data []byte) (steps map[string]build.CachedStep, err error) {
	var doc cacheDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("the list of its steps: %w", err)
	}
	if doc.Version < 1 || doc.Version > documentVersion {
		return nil, fmt.Errorf("the list of its steps: version %d is not known", doc.Version)
	}
	c.layers = map[string]cacheLayer{}
	for _, l := range doc.Layers {
		if err := (images.PackedLayer{Blob: l.Blob, DiffID: l.DiffID, Empty: l.Empty}).Check(); err != nil {
			return nil, fmt.Errorf("the list of its steps: %w", err)
		}
		c.layers[l.DiffID] = l
	}
	steps = make(map[string]build.CachedStep, len(doc.Steps))
	for key, step := range doc.Steps {
		layer, ok := c.layers[step.DiffID]
		if !ok && step.DiffID != "" {
			return nil, fmt.Errorf("the list of its steps: it has no layer %.80q", step.DiffID)
		}
		if doc.Version == 1 {
			step.Created = layer.Created
		}
		step.Created = step.Created.UTC()
		if _, err := step.Created.MarshalText(); err != nil { // an image couldn't tell it
			return nil, fmt.Errorf("the list of its steps: the time of one: %w", err)
		}
		steps[key] = build.CachedStep{DiffID: step.DiffID, Time: step.Created}
	}
	return steps, nil
}

// remoteLayer is a layer of a cache on top of a state. It comes when the state
// is used, and has a name of the store's from then on.
type remoteLayer struct {
	from  *cacheSource
	layer cacheLayer
	time  time.Time
	below build.State

	mu  sync.Mutex
	st  *staged // with the blob, while it isn't unpacked
	key string
}

// Stack puts the layer of a cache's step on a state.
func (w *worker) Stack(below build.State, cache *build.RemoteCache, step build.CachedStep) build.State {
	from := cache.Source.(*cacheSource)
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %v %q", cache.Ref, step.DiffID, step.Time, below.Layers)
	name := "remote-" + hex.EncodeToString(sum.Sum(nil))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.remote[name] == nil {
		w.remote[name] = &remoteLayer{from: from, layer: from.layers[step.DiffID], time: step.Time, below: below}
	}
	return build.State{Layers: append(below.Layers[:len(below.Layers):len(below.Layers)], name)}
}

func (w *worker) remoteOf(name string) *remoteLayer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.remote[name]
}

// fetched is the layer's name in the store, "" as long as it isn't there.
func (r *remoteLayer) fetched() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.key
}

// Fetched gives the names that layers have in the store.
func (w *worker) Fetched(names []string) ([]string, bool) {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = name
		if r := w.remoteOf(name); r != nil {
			if out[i] = r.fetched(); out[i] == "" {
				return nil, false
			}
		}
	}
	return out, true
}

// local fetches what of a state isn't here: several blobs at once, which are
// unpacked from the bottom to the top.
func (w *worker) local(ctx context.Context, s build.State) (build.State, error) {
	if names, ok := w.Fetched(s.Layers); ok {
		return build.State{Layers: names}, nil
	}
	var remote []*remoteLayer
	for _, name := range s.Layers {
		if r := w.remoteOf(name); r != nil {
			remote = append(remote, r)
		}
	}
	group, side := errgroup.WithContext(ctx)
	group.SetLimit(3)
	for _, r := range remote {
		group.Go(func() error { return r.lost(side, r.download(side, w)) })
	}
	if err := group.Wait(); err != nil {
		return s, err
	}
	for _, r := range remote {
		if err := r.lost(ctx, r.unpack(ctx, w)); err != nil {
			return s, err
		}
	}
	names, _ := w.Fetched(s.Layers)
	return build.State{Layers: names}, nil
}

// lost says whose fault an error is: that of the cache, but for an end of the
// build or a full disk.
func (r *remoteLayer) lost(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || isFull(err) {
		return err
	}
	return &build.LostCacheError{Ref: r.from.ref.FamiliarTagged(), Err: err}
}

// download brings the blob into a directory of the build's.
func (r *remoteLayer) download(ctx context.Context, w *worker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key != "" || r.st != nil {
		return nil
	}
	st, err := w.e.stageStep()
	if err != nil {
		return err
	}
	if !r.layer.Empty {
		if err := r.from.fetch(ctx, r.layer.Blob, filepath.Join(st.dir, "blob")); err != nil {
			st.close()
			return w.e.noRoom(err)
		}
	}
	r.st = st
	w.mu.Lock()
	w.pins = append(w.pins, func() { r.drop() })
	w.mu.Unlock()
	return nil
}

// drop removes what was downloaded and not unpacked.
func (r *remoteLayer) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.st != nil {
		r.st.close()
		r.st = nil
	}
}

// fetch writes a blob to a file and compares its digest.
func (c *cacheSource) fetch(ctx context.Context, d images.Descriptor, file string) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	if err := c.repo.Blob(ctx, d.Digest, d.Size, 0, io.MultiWriter(f, sum)); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != d.Digest {
		return fmt.Errorf("blob %s: it came with the digest %s", d.Digest, got)
	}
	return nil
}

// unpack makes a layer of the store of the blob. What is below was fetched.
func (r *remoteLayer) unpack(ctx context.Context, w *worker) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key != "" {
		return nil
	}
	if r.st == nil {
		return errors.New("the blob was let go of")
	}
	below, err := w.local(ctx, r.below)
	if err != nil {
		return err
	}
	if err := w.readyRoot(r.st, below, len(below.Layers) == 0); err != nil {
		return err
	}
	var meta madeLayer
	var packed packedFile
	if !r.layer.Empty {
		blob := filepath.Join(r.st.dir, "blob")
		meta, err = w.make(ctx, &buildJob{
			Do: jobReceive, Staging: r.st.dir, Layers: w.lowers(below), Paths: []string{blob}, DiffID: r.layer.DiffID,
		})
		if err == nil {
			packed, err = w.keepBlob(blob, r.layer)
		}
		if err != nil {
			return err
		}
	}
	meta.DiffID = r.layer.DiffID
	meta.Made = &layers.Made{Time: r.time, Blob: &layers.MadeBlob{
		Digest: r.layer.Blob.Digest, Size: r.layer.Blob.Size, MediaType: r.layer.Blob.MediaType, Empty: r.layer.Empty,
	}}
	state, err := w.place(ctx, r.st, below, meta.Meta)
	if err != nil {
		return err
	}
	r.st.close()
	r.st, r.key = nil, top(state)
	if packed.path != "" {
		w.mu.Lock()
		w.packed[r.key] = packed
		w.mu.Unlock()
	}
	return nil
}

// keepBlob keeps a blob as long as the build lives: the image takes it as it
// came, and another cache too.
func (w *worker) keepBlob(blob string, l cacheLayer) (packedFile, error) {
	dir, err := w.packDir()
	if err != nil {
		return packedFile{}, err
	}
	path := filepath.Join(dir, strings.TrimPrefix(l.Blob.Digest, "sha256:"))
	if err := os.Rename(blob, path); err != nil {
		return packedFile{}, err
	}
	b := images.Descriptor{MediaType: l.Blob.MediaType, Digest: l.Blob.Digest, Size: l.Blob.Size}
	return packedFile{PackedLayer: images.PackedLayer{Blob: b, DiffID: l.DiffID}, path: path}, nil
}
