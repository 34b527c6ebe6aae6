package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"

	"nook/internal/hint"
)

// CommitOptions says what image Commit makes.
type CommitOptions struct {
	// Base is the image whose layers the new one begins with, and whose config
	// fills in what Config doesn't say: the platform.
	Base Image
	// Layer is the tar stream of the topmost layer, not packed. One without
	// any entry adds no layer.
	Layer io.Reader
	// Config is how the image runs.
	Config ContainerConfig
	// Name is what the image is called; "" leaves it without a name.
	Name string
	// Author, CreatedBy and Message stand in the image's history.
	Author    string
	CreatedBy string
	Message   string
	// Created is when the image was made; zero means now. The same content
	// with the same Created is the same image.
	Created time.Time
	// Annotations go on the image's entry in the index: see Annotate.
	Annotations map[string]string
	Unpack      UnpackFunc
}

// emptyTar is the digest of a tar stream without entries: two blocks of zeros.
const emptyTar = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// Commit makes an image of another one with one more layer on top, which is
// stored packed with gzip. The image is there with all its parts or not at
// all; Base must not go meanwhile.
func (s *Store) Commit(ctx context.Context, o CommitOptions) (Image, error) {
	img, err := s.commit(ctx, o)
	if err != nil {
		return Image{}, fmt.Errorf("commit: %w", err)
	}
	return img, nil
}

func (s *Store) commit(ctx context.Context, o CommitOptions) (Image, error) {
	var names []Reference
	if o.Name != "" {
		ref, err := parseTarget(o.Name)
		if err != nil {
			return Image{}, err
		}
		names = []Reference{ref}
	}
	if err := checkAnnotations(o.Annotations); err != nil {
		return Image{}, err
	}
	manifest, err := s.Manifest(o.Base)
	if err != nil {
		return Image{}, err
	}
	config, err := s.Config(o.Base)
	if err != nil {
		return Image{}, err
	}
	stage, err := s.stage(ctx)
	if err != nil {
		return Image{}, err
	}
	defer stage.close()
	layer, diffID, err := stage.pack(watched(ctx, o.Layer, func(int64) {}))
	if err != nil {
		return Image{}, err
	}
	below := slices.Clone(manifest.Layers)
	c, err := stage.onTop(o, below, config, layer, diffID)
	if err != nil {
		return Image{}, err
	}
	c.names, c.annotations = names, o.Annotations
	wait := stage.sync()
	list, entries, err := stage.unpack(ctx, []candidate{c}, func(ctx context.Context, img Image, list []Layer) error {
		if o.Unpack == nil {
			return nil
		}
		list[len(list)-1].Own = true
		return o.Unpack(ctx, img, list)
	})
	if syncErr := wait(); err == nil {
		err = syncErr
	}
	if err != nil {
		return Image{}, err
	}
	err = stage.commit(ctx, func(idx *index) error {
		if err := s.have(below); err != nil {
			return err
		}
		idx.put(entries[0], names)
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	return list[0], nil
}

// have says whether the blobs of layers are in the store. The caller holds the
// lock.
func (s *Store) have(list []Descriptor) error {
	for _, l := range list {
		if _, err := os.Lstat(s.blobPath(l.Digest)); err != nil {
			return hint.Wrap(fmt.Errorf("%w: its base was removed meanwhile", ErrNotFound), "load or pull the base again")
		}
	}
	return nil
}

// packLevel is that of gzip: a commit is waited for, and a layer is sent and
// kept longer than that. The fastest level packs system files to 40% at the
// speed of hashing them; the slowest saves a tenth of it for ten times as long.
const packLevel = gzip.BestSpeed

// pack stores a tar stream as a blob:
//
//	stream ─┬─> sha256 (the diff id)
//	        └─> gzip ──pipe──┬─> sha256 (the blob)
//	                         └─> file
//
// The two sides of the pipe run side by side.
func (g *staging) pack(stream io.Reader) (file staged, diffID string, err error) {
	return g.packTo(g.newPath(), stream)
}

// packTo is pack for who packs several streams at once.
func (g *staging) packTo(path string, stream io.Reader) (file staged, diffID string, err error) {
	r, w := io.Pipe()
	plain := sha256.New()
	done := make(chan error, 1)
	go func() {
		packed, err := newPacker(w, packFrom)
		if err == nil {
			err = errors.Join(copyAll(io.MultiWriter(plain, packed), stream), packed.Close())
		}
		_ = w.CloseWithError(err) // nil is io.EOF
		done <- err
	}()
	file, err = g.writeTo(path, r)
	_ = r.CloseWithError(err)
	if cause := <-done; err == nil {
		err = cause
	}
	if err != nil {
		return staged{}, "", err
	}
	return file, "sha256:" + hex.EncodeToString(plain.Sum(nil)), nil
}

// onTop writes the config and the manifest of an image with one layer more.
func (g *staging) onTop(o CommitOptions, below []Descriptor, base *ImageConfig, layer staged, diffID string) (candidate, error) {
	created := o.Created.UTC()
	if o.Created.IsZero() {
		created = time.Now().UTC()
	}
	cfg := *base
	cfg.Created, cfg.Author, cfg.Config = &created, o.Author, o.Config
	step := History{
		Created: &created, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message,
		EmptyLayer: diffID == emptyTar && len(below) > 0,
	}
	m := &Manifest{SchemaVersion: 2, MediaType: mediaTypeManifest}
	for _, l := range below {
		m.Layers = append(m.Layers, Descriptor{MediaType: ociLayerType(l.MediaType), Digest: l.Digest, Size: l.Size})
	}
	cfg.RootFS.DiffIDs = slices.Clone(base.RootFS.DiffIDs)
	if !step.EmptyLayer {
		g.keep(layer)
		m.Layers = append(m.Layers, Descriptor{MediaType: mediaTypeLayerGzip, Digest: layer.digest, Size: layer.size})
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, diffID)
	}
	if err := stackable(len(m.Layers)); err != nil {
		return candidate{}, err
	}
	cfg.History = append(ofAllLayers(base.History, len(below)), step)
	file, err := g.keepJSON(&cfg)
	if err != nil {
		return candidate{}, fmt.Errorf("write image config: %w", err)
	}
	m.Config = Descriptor{MediaType: mediaTypeConfig, Digest: file.digest, Size: file.size}
	if file, err = g.keepJSON(m); err != nil {
		return candidate{}, fmt.Errorf("write manifest: %w", err)
	}
	return candidate{
		desc:     Descriptor{MediaType: mediaTypeManifest, Digest: file.digest, Size: file.size},
		manifest: m, config: &cfg,
	}, nil
}

// ofAllLayers is a history with a step for each of so many layers: those that it
// doesn't tell of (an image may have none at all) would else be taken for what
// the next step made.
func ofAllLayers(history []History, layers int) []History {
	history = slices.Clone(history)
	for _, step := range history {
		if !step.EmptyLayer {
			layers--
		}
	}
	for range layers {
		history = append(history, History{})
	}
	return history
}

// ociLayerType is OCI's name of docker's layer types: one manifest has the
// types of one of the two.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case mediaTypeDockerLayer:
		return mediaTypeLayer
	case mediaTypeDockerLayerGzip:
		return mediaTypeLayerGzip
	case mediaTypeDockerLayerZstd:
		return mediaTypeLayerZstd
	}
	return mediaType
}
