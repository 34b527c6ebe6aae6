package images

import (
	"os"
	"path/filepath"
)

// Held is an image that stays of use when the store loses it: Assemble builds
// on it as if it were there still, as a build goes on with a base that is
// removed meanwhile.
type Held struct {
	image    Image
	manifest *Manifest
	config   *ImageConfig
	files    map[string]string // of layers, by digest
}

// Image is what is held.
func (h *Held) Image() Image { return h.image }

// Hold reads an image, and gives its layers' blobs a second name in a directory
// of the store's file system, which is the caller's to remove. Where the file
// system has no hard links the image is needed in the store.
func (s *Store) Hold(img Image, dir string) (*Held, error) {
	h := &Held{image: img, files: map[string]string{}}
	var err error
	if h.manifest, err = s.Manifest(img); err != nil {
		return nil, err
	}
	if h.config, err = s.Config(img); err != nil {
		return nil, err
	}
	for _, d := range h.manifest.Layers {
		if checkDigest(d.Digest) != nil {
			continue
		}
		path := filepath.Join(dir, "blob-"+d.Digest[len(digestPrefix):])
		if err := os.Link(s.blobPath(d.Digest), path); err == nil || os.IsExist(err) {
			h.files[d.Digest] = path
		}
	}
	return h, nil
}
