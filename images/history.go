package images

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"nook/images/registry"
)

// Step is one step in the making of an image, as docker history shows it.
type Step struct {
	// ID is the image's for the topmost step, "" for the others: what they were
	// is only known where they were made.
	ID        string
	Created   time.Time // zero: the image doesn't say
	CreatedBy string
	Comment   string
	Size      int64 // bytes of the layer that the step made; 0: it made none
	Tags      []string
}

// History lists the steps of an image, the last one first. sizes are those of
// its layers, the bottom one first; nil means those of the blobs. Layers that
// the image's history says nothing of come as steps of their own.
func (s *Store) History(img Image, sizes []int64) ([]Step, error) {
	cfg, err := s.Config(img)
	if err != nil {
		return nil, err
	}
	if sizes == nil {
		layers, err := s.Layers(img)
		if err != nil {
			return nil, err
		}
		for _, l := range layers {
			sizes = append(sizes, l.Size)
		}
	}
	var steps []Step
	for _, h := range cfg.History {
		step := Step{CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			step.Created = *h.Created
		}
		if !h.EmptyLayer && len(sizes) > 0 {
			step.Size, sizes = sizes[0], sizes[1:]
		}
		steps = append(steps, step)
	}
	for _, size := range sizes {
		steps = append(steps, Step{Size: size, Created: img.Created})
	}
	slices.Reverse(steps)
	if len(steps) > 0 {
		steps[0].ID, steps[0].Tags = img.ID, img.Names
	}
	return steps, nil
}

// RawManifest is the manifest of an image as it came.
func (s *Store) RawManifest(img Image) ([]byte, error) { return s.readBlob(img.Manifest.Digest) }

// IndexOf is the digest of the index that img was chosen from when it was
// pulled, "" for none: the store keeps the image alone. A digest that is img's
// own means no other document.
func (img *Image) IndexOf(ref Reference) string {
	if len(img.Indexes) == 0 || ref.Digest == img.Manifest.Digest {
		return ""
	}
	if ref.Digest != "" {
		return ref.Digest
	}
	return img.Indexes[len(img.Indexes)-1]
}

// RemoteManifest is the document that ref means in its registry: a manifest or
// an index, of whatever kind. It is JSON, and has the digest of ref if that has
// one.
func RemoteManifest(ctx context.Context, from Remote, ref Reference) ([]byte, error) {
	reference := ref.Tag
	if ref.Digest != "" {
		reference = ref.Digest
	}
	m, err := from.Manifest(ctx, reference, append(manifestTypes(), "*/*;q=0.5"))
	if err != nil {
		return nil, err
	}
	if !json.Valid(m.Body) {
		return nil, fmt.Errorf("%w: what it sends is no JSON", registry.ErrProtocol)
	}
	return m.Body, nil
}
