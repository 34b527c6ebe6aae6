package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// AssembleOptions says of what Assemble makes an image.
type AssembleOptions struct {
	// Base is the image whose layers the new one begins with; nil: none.
	Base *Held
	// Layers come on top of it, bottom to top.
	Layers []NewLayer
	// Config is that of the new image but for its RootFS. The entries of its
	// History after those of Base that aren't EmptyLayer are Layers, in order.
	Config ImageConfig
	Names  []string
	// Packed is told what Layers became before anything is stored. An error of
	// it ends Assemble. It is called for layers that were packed before too.
	Packed func(list []PackedLayer) error
	// Keep, if set, is told by Archive where a layer lies that isn't in the
	// store, until it returns. Archive doesn't call Unpack.
	Keep   func(layer int, p PackedLayer, path string)
	Unpack UnpackFunc
	// Epoch, if not zero, is the latest time that the image and its history
	// after Base's have, and what they have where they would have none.
	Epoch time.Time
}

// NewLayer is a layer of an image that is made.
type NewLayer struct {
	// Blob and DiffID are of one that was packed before: it is taken if the
	// store has the blob still, and its digest and size, not more, if not even
	// the blob is needed (Packed.Empty).
	Before *PackedLayer
	// File, if not "", is a file of the store's file system with the blob of
	// Before, which is taken where the store doesn't have it. It is never
	// written to any more, and the digests of both were compared.
	File string
	// Open gives its tar stream, not packed. The same layer gives the same
	// stream.
	Open func() (io.ReadCloser, error)
	// Time stands in the image's history.
	Time time.Time
}

// PackedLayer is a layer with its digests.
type PackedLayer struct {
	Blob   Descriptor
	DiffID string
	// Empty: without any entry. Such a layer is left out of an image.
	Empty bool
}

// Check refuses what nobody says who packed a layer.
func (p PackedLayer) Check() error {
	for _, digest := range []string{p.DiffID, p.Blob.Digest} {
		if err := checkDigest(digest); err != nil {
			return err
		}
	}
	switch {
	case p.Blob.Size <= 0:
		return fmt.Errorf("blob %s has %d bytes", p.Blob.Digest, p.Blob.Size)
	case !isLayerType(p.Blob.MediaType):
		return fmt.Errorf("blob %s is no layer: its media type is %.80q", p.Blob.Digest, p.Blob.MediaType)
	case p.Empty && p.DiffID != emptyTar:
		return fmt.Errorf("layer %s is called empty, and isn't", p.DiffID)
	}
	return nil
}

// Assemble makes an image of another one, or of none, with more layers on top.
// What the store has already is not written again: the same image under the
// same names costs some reads. The image is there with all its parts or not
// at all.
func (s *Store) Assemble(ctx context.Context, o AssembleOptions) (Image, error) {
	a := &assembling{store: s, o: o}
	img, err := a.run(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("commit: %w", err)
	}
	return img, nil
}

type assembling struct {
	store  *Store
	o      AssembleOptions
	names  []Reference
	below  []Descriptor
	base   *ImageConfig
	packed []PackedLayer
	stage  *staging
}

func (a *assembling) run(ctx context.Context) (Image, error) {
	if err := a.read(); err != nil {
		return Image{}, err
	}
	a.packed = make([]PackedLayer, len(a.o.Layers))
	if a.known() {
		if img, ok := a.there(); ok {
			return img, nil
		}
	}
	var err error
	if a.stage, err = a.store.stage(ctx); err != nil {
		return Image{}, err
	}
	defer a.stage.close()
	a.spare()
	if err := a.pack(ctx); err != nil {
		return Image{}, err
	}
	if a.o.Packed != nil {
		if err := a.o.Packed(a.packed); err != nil {
			return Image{}, err
		}
	}
	c, err := a.candidate()
	if err != nil {
		return Image{}, err
	}
	return a.commit(ctx, c)
}

func (a *assembling) read() error {
	for _, name := range a.o.Names {
		ref, err := parseTarget(name)
		if err != nil {
			return err
		}
		a.names = append(a.names, ref)
	}
	a.base = &ImageConfig{RootFS: RootFS{Type: "layers"}}
	if a.o.Base == nil {
		return nil
	}
	a.below, a.base = a.o.Base.manifest.Layers, a.o.Base.config
	return nil
}

// spare has the blobs that are in the store already put there again if somebody
// removes them before the index has this image.
func (a *assembling) spare() {
	for _, d := range a.below {
		a.stage.spare(d.Digest, a.o.Base.files[d.Digest])
	}
	for _, l := range a.o.Layers {
		if a.store.hasPacked(l.Before) && !l.Before.Empty {
			a.stage.spare(l.Before.Blob.Digest, "")
		}
	}
}

// known tells whether all layers were packed before and are still here.
func (a *assembling) known() bool {
	for i, l := range a.o.Layers {
		if !a.store.hasPacked(l.Before) {
			return false
		}
		a.packed[i] = *l.Before
	}
	return true
}

func (s *Store) hasPacked(p *PackedLayer) bool {
	if p == nil || checkDigest(p.Blob.Digest) != nil {
		return false
	}
	if p.Empty {
		return true
	}
	info, err := os.Lstat(s.blobPath(p.Blob.Digest))
	suspects, suspectErr := s.ledger().Suspects()
	return err == nil && info.Size() == p.Blob.Size && suspectErr == nil && !suspects[p.Blob.Digest]
}

// there finds the image where it needn't be made.
func (a *assembling) there() (Image, bool) {
	manifest, _, err := a.documents()
	if err != nil {
		return Image{}, false
	}
	idx, err := a.store.readIndex()
	if err != nil {
		return Image{}, false
	}
	for _, img := range a.store.images(idx) {
		if img.Manifest.Digest != digestOf(manifest) {
			continue
		}
		for _, ref := range a.names {
			if !slices.Contains(img.Names, ref.String()) {
				return Image{}, false
			}
		}
		return img, true
	}
	return Image{}, false
}

// pack packs side by side what wasn't yet.
func (a *assembling) pack(ctx context.Context) error {
	files := make([]staged, len(a.o.Layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, l := range a.o.Layers {
		if a.store.hasPacked(l.Before) {
			a.packed[i] = *l.Before
			continue
		}
		path := a.stage.newPath()
		// Where a file has one name only, it is packed again.
		if l.File != "" && os.Link(l.File, path) == nil {
			files[i], a.packed[i] = staged{path, l.Before.Blob.Digest, l.Before.Blob.Size}, *l.Before
			continue
		}
		group.Go(func() (err error) {
			in, err := l.Open()
			if err != nil {
				return err
			}
			file, diffID, err := a.stage.packTo(path, watched(ctx, in, func(int64) {}))
			if err = errors.Join(err, in.Close()); err != nil {
				return err
			}
			files[i] = file
			a.packed[i] = PackedLayer{
				Blob:   Descriptor{MediaType: mediaTypeLayerGzip, Digest: file.digest, Size: file.size},
				DiffID: diffID, Empty: diffID == emptyTar,
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, file := range files {
		if file.path != "" && !a.packed[i].Empty {
			a.stage.keep(file)
		}
	}
	return nil
}

// PackFile packs a tar stream into a new file as Assemble packs layers.
func (s *Store) PackFile(path string, stream io.Reader) (PackedLayer, error) {
	file, diffID, err := (&staging{store: s}).packTo(path, stream)
	if err != nil {
		return PackedLayer{}, err
	}
	return PackedLayer{
		Blob:   Descriptor{MediaType: mediaTypeLayerGzip, Digest: file.digest, Size: file.size},
		DiffID: diffID, Empty: diffID == emptyTar,
	}, nil
}

// PackedFile is where a layer that was packed before lies in the store; false
// where it doesn't any more.
func (s *Store) PackedFile(p PackedLayer) (path string, ok bool) {
	if p.Empty || !s.hasPacked(&p) {
		return "", false
	}
	return s.blobPath(p.Blob.Digest), true
}

// documents are the manifest and the config of the image, as they are stored.
func (a *assembling) documents() (manifest, config []byte, err error) {
	m, cfg := a.describe()
	if config, err = json.Marshal(cfg); err != nil {
		return nil, nil, fmt.Errorf("write image config: %w", err)
	}
	m.Config = Descriptor{MediaType: mediaTypeConfig, Digest: digestOf(config), Size: int64(len(config))}
	if manifest, err = json.Marshal(m); err != nil {
		return nil, nil, fmt.Errorf("write manifest: %w", err)
	}
	return manifest, config, nil
}

func (a *assembling) describe() (*Manifest, *ImageConfig) {
	m := &Manifest{SchemaVersion: 2, MediaType: mediaTypeManifest, Layers: []Descriptor{}}
	for _, l := range a.below {
		m.Layers = append(m.Layers, Descriptor{MediaType: ociLayerType(l.MediaType), Digest: l.Digest, Size: l.Size})
	}
	cfg := a.o.Config
	cfg.RootFS = RootFS{Type: "layers", DiffIDs: append([]string{}, a.base.RootFS.DiffIDs...)}
	below := ofAllLayers(a.base.History, len(a.below))
	cfg.History = append(below, cfg.History[min(len(a.base.History), len(cfg.History)):]...)
	var last *time.Time // of the layer or step before
	next := 0
	for i := range cfg.History {
		step := &cfg.History[i]
		if i >= len(below) && !step.EmptyLayer && next < len(a.packed) {
			if at := a.o.Layers[next].Time; !at.IsZero() {
				at = at.UTC()
				step.Created = &at
			}
			step.EmptyLayer = a.packed[next].Empty
			next++
		}
		if step.Created == nil {
			step.Created = last
		}
		if i >= len(below) {
			step.Created = a.clamped(step.Created)
		}
		last = step.Created
	}
	if cfg.Created == nil {
		cfg.Created = a.clamped(last)
	}
	for _, l := range a.packed {
		if l.Empty {
			continue
		}
		m.Layers = append(m.Layers, l.Blob)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
	}
	return m, &cfg
}

func (a *assembling) clamped(at *time.Time) *time.Time {
	if epoch := a.o.Epoch.UTC(); !a.o.Epoch.IsZero() && (at == nil || at.After(epoch)) {
		return &epoch
	}
	return at
}

func (a *assembling) candidate() (candidate, error) {
	manifest, config, err := a.documents()
	if err != nil {
		return candidate{}, err
	}
	for _, data := range [][]byte{manifest, config} {
		if _, err := a.stage.keepBytes(bytes.NewReader(data)); err != nil {
			return candidate{}, err
		}
	}
	c := candidate{
		desc:  Descriptor{MediaType: mediaTypeManifest, Digest: digestOf(manifest), Size: int64(len(manifest))},
		names: a.names,
	}
	if c.manifest, err = parseManifest(manifest, mediaTypeManifest); err != nil {
		return candidate{}, err
	}
	if err := stackable(len(c.manifest.Layers)); err != nil {
		return candidate{}, err
	}
	c.config, err = parseConfig(config)
	return c, err
}

func (a *assembling) commit(ctx context.Context, c candidate) (Image, error) {
	wait := a.stage.sync()
	list, entries, err := a.stage.unpack(ctx, []candidate{c}, a.o.Unpack)
	if syncErr := wait(); err == nil {
		err = syncErr
	}
	if err != nil {
		return Image{}, err
	}
	err = a.stage.commit(ctx, func(idx *index) error {
		// What is not brought along has to be here until the index says so.
		for _, l := range c.manifest.Layers {
			if _, staged := a.stage.kept[l.Digest]; staged {
				continue
			}
			if err := a.store.have([]Descriptor{l}); err != nil {
				return err
			}
		}
		idx.put(entries[0], c.names)
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	return list[0], nil
}
