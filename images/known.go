package images

import (
	"os"
	"slices"
)

// markKnown finds the layers whose blobs came with an image that is in the
// store: they were held to their diff ids then. An entry that another program
// wrote says nothing. It is a shortcut, so that what can't be read is passed over.
func (s *Store) markKnown(layers []Layer) {
	// What is all new, as most that is pulled, is told by its blobs alone.
	here := func(l Layer) bool {
		_, err := os.Lstat(s.blobPath(l.Digest))
		return !l.Known && err == nil
	}
	if !slices.ContainsFunc(layers, here) {
		return
	}
	idx, err := s.readIndex()
	if err != nil {
		return
	}
	for _, entry := range slices.Backward(idx.Manifests) {
		if entry.Annotations[annotationConfig] == "" {
			continue
		}
		s.markAs(layers, Image{ID: entry.Annotations[annotationConfig], Manifest: entry})
		if !slices.ContainsFunc(layers, here) {
			return
		}
	}
}

// markAs marks those that img has, too, under the same diff ids.
func (s *Store) markAs(layers []Layer, img Image) {
	m, err := s.Manifest(img)
	if err != nil || !slices.ContainsFunc(m.Layers, func(d Descriptor) bool {
		return slices.ContainsFunc(layers, func(l Layer) bool { return l.Digest == d.Digest })
	}) {
		return
	}
	theirs, err := s.Layers(img)
	if err != nil {
		return
	}
	for i := range layers {
		for _, l := range theirs {
			if l.Digest == layers[i].Digest && l.DiffID == layers[i].DiffID {
				layers[i].Known = true
			}
		}
	}
}
