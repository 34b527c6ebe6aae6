package engine

import (
	"context"
	"errors"
	"fmt"

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

// Manifest gives the document that a name means, as it came. For an image of
// the store that is its manifest, or the index of several platforms that it was
// pulled from, which the registry has; for any other what its registry has.
func (e *Engine) Manifest(ctx context.Context, name string) ([]byte, error) {
	img, err := e.resolve(ctx, name)
	if errors.Is(err, images.ErrNotFound) {
		if _, notName := images.ParseReference(name); notName == nil {
			return e.remoteManifest(ctx, name)
		}
	}
	if err != nil {
		return nil, err
	}
	ref, err := images.ParseReference(name)
	if index := img.IndexOf(ref); err == nil && index != "" && len(img.Sources) > 0 {
		return e.remoteManifest(ctx, img.Sources[len(img.Sources)-1]+"@"+index)
	}
	return e.images.RawManifest(img)
}

func (e *Engine) remoteManifest(ctx context.Context, name string) ([]byte, error) {
	client, config, err := remotes(nil)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ref, err := unalias(config, name)
	if err != nil {
		return nil, err
	}
	repo, err := client.Repository(ref.Registry, ref.Path)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", ref.FamiliarTagged(), err)
	}
	body, err := images.RemoteManifest(ctx, repo, ref)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", ref.FamiliarTagged(), err)
	}
	return body, nil
}
