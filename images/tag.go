package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"nook/internal/hint"
)

// Tag gives the image that src names (see Resolve) one more name. Another
// image that has the name loses it.
func (s *Store) Tag(ctx context.Context, src, dst string) error {
	ref, err := parseTarget(dst)
	if err != nil {
		return err
	}
	return s.update(ctx, func(idx *index) error {
		img, err := Find(s.images(idx), src)
		if err != nil {
			return err
		}
		entry, err := s.entry(idx, img)
		if err != nil {
			return err
		}
		idx.rename(entry, ref.String())
		return nil
	})
}

// parseTarget reads a name that an image is to get.
func parseTarget(name string) (Reference, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return ref, err
	}
	if ref.Digest != "" {
		return ref, hint.Errorf("leave out @sha256:…",
			"image name %q: a digest can't be given, it comes from the content", shorten(name))
	}
	return ref, nil
}

// entry is an entry of img in the index, with the cache that one of another
// program's lacks.
func (s *Store) entry(idx *index, img Image) (Descriptor, error) {
	for _, entry := range idx.Manifests {
		if entry.Digest != img.Manifest.Digest {
			continue
		}
		if entry.Annotations[annotationConfig] == "" {
			return s.describe(entry)
		}
		return entry, nil
	}
	return Descriptor{}, fmt.Errorf("image %s: %w", ShortID(img.ID), ErrNotFound)
}

// Annotate sets annotations on an image of the store; an empty value removes
// one. They belong to this store and not to the image: they aren't in its
// manifest and don't leave with it.
func (s *Store) Annotate(ctx context.Context, img Image, annotations map[string]string) error {
	if err := checkAnnotations(annotations); err != nil {
		return err
	}
	return s.update(ctx, func(idx *index) error {
		found := false
		for i, entry := range idx.Manifests {
			if entry.Digest != img.Manifest.Digest {
				continue
			}
			found = true
			changed := withName(entry, entry.Annotations[annotationRefName])
			for key, value := range annotations {
				changed.Annotations[key] = value
				if value == "" {
					delete(changed.Annotations, key)
				}
			}
			idx.Manifests[i] = changed
		}
		if !found {
			return fmt.Errorf("image %s: %w", ShortID(img.ID), ErrNotFound)
		}
		return nil
	})
}

// checkAnnotations keeps callers from the keys that the index is made of.
func checkAnnotations(annotations map[string]string) error {
	own := []string{annotationRefName, annotationConfig, annotationCreated, annotationSize, annotationUnpacked, annotationIndex}
	for key := range annotations {
		if slices.Contains(own, key) || strings.TrimSpace(key) == "" {
			return fmt.Errorf("annotation %q can't be set", key)
		}
	}
	return nil
}
