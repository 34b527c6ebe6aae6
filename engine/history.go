package engine

import (
	"context"

	"nook/images"
)

// History lists the steps that made an image, the last one first.
func (e *Engine) History(ctx context.Context, name string) ([]images.Step, error) {
	img, err := e.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	image, err := e.images.Config(img)
	if err != nil {
		return nil, err
	}
	sizes, err := e.layers.Sizes(image.RootFS.DiffIDs)
	if err != nil { // not unpacked: the blobs' sizes are better than none
		sizes = nil
	}
	return e.images.History(img, sizes)
}

// Manifest reads the manifest of an image of the store, as it came.
func (e *Engine) Manifest(ctx context.Context, name string) ([]byte, error) {
	img, err := e.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return e.images.RawManifest(img)
}
