package images

import (
	"context"
	"fmt"
	"io"
)

// Archive writes the image that Assemble would make, with its names, as an
// archive like those of Save. The store has it no more than before.
func (s *Store) Archive(ctx context.Context, o AssembleOptions, w io.Writer) (Image, error) {
	a := &assembling{store: s, o: o}
	img, err := a.archive(ctx, w)
	if err != nil {
		return Image{}, fmt.Errorf("save: %w", err)
	}
	return img, nil
}

func (a *assembling) archive(ctx context.Context, w io.Writer) (img Image, err error) {
	if err := a.read(); err != nil {
		return img, err
	}
	a.packed = make([]PackedLayer, len(a.o.Layers))
	if a.stage, err = a.store.stage(ctx); err != nil {
		return img, err
	}
	defer a.stage.close()
	a.spare()
	if err := a.pack(ctx); err != nil {
		return img, err
	}
	if a.o.Packed != nil {
		if err := a.o.Packed(a.packed); err != nil {
			return img, err
		}
	}
	for i, p := range a.packed {
		if path := a.stage.kept[p.Blob.Digest]; path != "" && a.o.Keep != nil {
			a.o.Keep(i, p, path)
		}
	}
	c, err := a.candidate()
	if err == nil {
		err = c.readable()
	}
	if err != nil {
		return img, err
	}
	if img, err = a.store.image(newEntry(c.desc, c.manifest, c.config)); err != nil {
		return img, err
	}
	for _, ref := range c.names {
		img.Names = append(img.Names, ref.String())
	}
	var blobs []Descriptor
	listed := map[string]bool{}
	for _, d := range append([]Descriptor{c.desc, c.manifest.Config}, c.manifest.Layers...) {
		if !listed[d.Digest] {
			listed[d.Digest] = true
			blobs = append(blobs, d)
		}
	}
	manifest := func(Image) (*Manifest, error) { return c.manifest, nil }
	return img, writeArchive(ctx, w, []Image{img}, manifest, blobs, a.pathOf)
}

// pathOf is where a blob lies that stays, whoever removes its image meanwhile;
// where there are no hard links, in the store.
func (a *assembling) pathOf(digest string) string {
	if path := a.stage.spares[digest]; path != "" && a.stage.kept[digest] == "" {
		return path
	}
	return a.stage.pathOf(digest)
}
