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
	"time"

	"golang.org/x/sync/errgroup"

	"nook/build"
	"nook/images"
	"nook/images/registry"
	"nook/internal/hint"
)

// packedFile is a layer that was packed to be sent.
type packedFile struct {
	images.PackedLayer
	path  string
	lacks bool // see layers.MadeBlob
}

// DiffIDs names layers by their diff ids.
func (w *worker) DiffIDs(ctx context.Context, names []string, pack bool) ([]string, bool, error) {
	var ids []string
	for i := range names {
		id, err := w.diffID(ctx, names[:i+1], pack)
		if err != nil || id == "" {
			return nil, false, err
		}
		ids = append(ids, id)
	}
	return ids, true, nil
}

// diffID is that of the last of some layers, "" for one that has none.
func (w *worker) diffID(ctx context.Context, names []string, pack bool) (string, error) {
	name := names[len(names)-1]
	if r := w.remoteOf(name); r != nil {
		return r.layer.DiffID, nil
	}
	w.mu.Lock()
	unsure, packed := w.unsure[name], w.packed[name]
	w.mu.Unlock()
	if unsure || packed.path != "" {
		return packed.DiffID, nil
	}
	meta, err := w.e.layers.Meta(name)
	if err != nil {
		return "", err
	}
	if made := meta.Made; made != nil && pack {
		before := images.PackedLayer{DiffID: meta.DiffID}
		if b := made.Blob; b != nil {
			before.Empty, before.Blob = b.Empty, images.Descriptor{Digest: b.Digest, Size: b.Size, MediaType: b.MediaType}
		}
		if _, there := w.e.images.PackedFile(before); !there && !before.Empty {
			return w.pack(ctx, names)
		}
	}
	return meta.DiffID, nil
}

// packDir is for packed files, as long as the build lives.
func (w *worker) packDir() (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.packs == nil {
		st, err := w.e.stageStep()
		if err != nil {
			return "", err
		}
		w.packs = st
	}
	return w.packs.dir, nil
}

// packedAs is the file of a layer that was packed, or came so; "" for others.
func (w *worker) packedAs(key string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.packed[key].path
}

// pack packs the last of some layers into a file.
func (w *worker) pack(ctx context.Context, names []string) (string, error) {
	dir, err := w.packDir()
	if err != nil {
		return "", err
	}
	here, err := w.local(ctx, build.State{Layers: names})
	if err != nil {
		return "", err
	}
	name := top(here)
	p := packedFile{path: filepath.Join(dir, name)}
	in, err := w.e.stageOutput(ctx, &buildJob{Do: jobLayer, Layers: w.lowers(here)}, func(_ int64, lacks bool) { p.lacks = lacks })
	if err != nil {
		return "", err
	}
	p.PackedLayer, err = w.e.images.PackFile(p.path, in)
	if err = errors.Join(err, in.Close()); err != nil {
		return "", w.e.noRoom(err)
	}
	w.mu.Lock()
	w.packed[name] = p
	w.mu.Unlock()
	return p.DiffID, nil
}

// sending is a WriteCache.
type sending struct {
	w    *worker
	ref  images.Reference
	repo *registry.Repository
	doc  cacheDocument
	open map[string]func() (string, error) // the file of a blob, by its digest
	log  sendingLog
}

// WriteCache sends steps and their layers to a registry.
func (w *worker) WriteCache(ctx context.Context, name string, records []build.CacheRecord, out io.Writer) error {
	ref, repo, err := w.repository(name)
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		return hint.Errorf("name a tag", "a digest is no name to write to")
	}
	s := &sending{
		w: w, ref: ref, repo: repo, open: map[string]func() (string, error){}, log: sendingLog{now: time.Now, out: out},
		doc: cacheDocument{Version: documentVersion, Layers: []cacheLayer{}, Steps: map[string]cacheStep{}},
	}
	known := map[string]bool{}
	for _, r := range records {
		if r.Layer == "" {
			s.doc.Steps[r.Key] = cacheStep{}
			continue
		}
		l, made, err := s.layer(ctx, r.Layer)
		if err != nil {
			return err
		}
		s.doc.Steps[r.Key] = cacheStep{DiffID: l.DiffID, Created: made}
		if !known[l.DiffID] {
			known[l.DiffID] = true
			s.doc.Layers = append(s.doc.Layers, l)
		}
	}
	return s.send(ctx)
}

// layer describes a layer, tells when it was made, and notes where its blob is
// to be found.
func (s *sending) layer(ctx context.Context, name string) (_ cacheLayer, made time.Time, err error) {
	if r := s.w.remoteOf(name); r != nil {
		s.open[r.layer.Blob.Digest] = func() (string, error) { return s.pass(ctx, r) }
		return r.layer, r.time, nil
	}
	meta, err := s.w.e.layers.Meta(name)
	if err != nil {
		return cacheLayer{}, made, err
	}
	if meta.Made == nil {
		return cacheLayer{}, made, fmt.Errorf("layer %s: it is not one of a build", name)
	}
	l := cacheLayer{DiffID: meta.DiffID}
	s.w.mu.Lock()
	packed := s.w.packed[name]
	s.w.mu.Unlock()
	if packed.path != "" {
		l.DiffID, l.Blob, l.Empty = packed.DiffID, packed.Blob, packed.Empty
		s.open[l.Blob.Digest] = func() (string, error) { return packed.path, nil }
		return l, meta.Made.Time, nil
	}
	b := meta.Made.Blob
	l.Blob, l.Empty = images.Descriptor{Digest: b.Digest, Size: b.Size, MediaType: b.MediaType}, b.Empty
	s.open[b.Digest] = func() (string, error) {
		path, ok := s.w.e.images.PackedFile(images.PackedLayer{Blob: l.Blob, DiffID: l.DiffID})
		if !ok {
			return "", fmt.Errorf("layer %s: its blob was removed meanwhile", name)
		}
		return path, nil
	}
	return l, meta.Made.Time, nil
}

// pass brings a blob here that another repository has.
func (s *sending) pass(ctx context.Context, r *remoteLayer) (string, error) {
	if path, ok := s.w.e.images.PackedFile(images.PackedLayer{Blob: r.layer.Blob, DiffID: r.layer.DiffID}); ok {
		return path, nil
	}
	if path := s.w.packedAs(r.fetched()); path != "" {
		return path, nil
	}
	dir, err := s.w.packDir()
	if err == nil {
		dir, err = os.MkdirTemp(dir, "")
	}
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "blob")
	return file, r.from.fetch(ctx, r.layer.Blob, file)
}

// send uploads the blobs, then the document and the manifest.
func (s *sending) send(ctx context.Context) error {
	manifest := images.Manifest{SchemaVersion: 2, MediaType: cacheManifestType, Layers: []images.Descriptor{}}
	group, side := errgroup.WithContext(ctx)
	group.SetLimit(3)
	for _, l := range s.doc.Layers {
		if l.Empty {
			continue
		}
		manifest.Layers = append(manifest.Layers, l.Blob)
		group.Go(func() error { return s.blob(side, l.Blob) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	doc, err := json.Marshal(s.doc)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(doc)
	manifest.Config = images.Descriptor{MediaType: cacheConfigType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(doc))}
	if _, err := s.repo.Push(ctx, registry.Upload{Digest: manifest.Config.Digest, Size: manifest.Config.Size, Open: func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(doc[offset:])), nil
	}}); err != nil {
		return err
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := s.repo.PushManifest(ctx, s.ref.Tag, cacheManifestType, body); err != nil {
		return err
	}
	s.log.tell("steps: %d, layers: %d", len(s.doc.Steps), len(manifest.Layers))
	return nil
}

// blob uploads one that the repository doesn't have.
func (s *sending) blob(ctx context.Context, d images.Descriptor) error {
	sent, err := s.repo.Push(ctx, registry.Upload{Digest: d.Digest, Size: d.Size, Open: func(offset int64) (io.ReadCloser, error) {
		path, err := s.open[d.Digest]()
		if err != nil {
			return nil, err
		}
		f, err := openAt(path, offset)
		if err != nil {
			return nil, err
		}
		return s.log.watch(d, offset, f), nil
	}})
	switch {
	case err != nil:
		return err
	case sent == registry.Existed:
		s.log.tell("layer %s: %s, it was there", images.ShortID(d.Digest), size(d.Size))
	default:
		s.log.tell("layer %s: %s sent", images.ShortID(d.Digest), size(d.Size))
	}
	return nil
}

func openAt(path string, offset int64) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
