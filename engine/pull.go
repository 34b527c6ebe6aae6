package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nook/images"
	"nook/images/registry"
	"nook/internal/hint"
)

// PullPolicy says when a container's image is pulled.
type PullPolicy string

// The policies that docker has. The zero PullPolicy is PullMissing.
const (
	PullAlways  PullPolicy = "always"
	PullMissing PullPolicy = "missing"
	PullNever   PullPolicy = "never"
)

// PullOptions says what Pull brings and who hears of it.
type PullOptions struct {
	Platform string // os/arch[/variant]; "": this host's
	AllTags  bool   // every tag of the repository; the name has none then
	// Begun, if set, is told the full name of each image that the registry
	// has, before its layers come.
	Begun func(ref images.Reference)
	// Layer, if set, is told what becomes of each layer. It is called from
	// several goroutines.
	Layer func(digest string, state images.LayerState)
	// Done, if set, is told of each image that is there.
	Done func(Pulled)
}

// Pulled is an image that came from a registry, and the name it came by.
type Pulled struct {
	images.Pulled
	Ref images.Reference
}

// Pull brings an image from its registry into the store, and unpacks it while
// it comes.
func (e *Engine) Pull(ctx context.Context, name string, o PullOptions) ([]Pulled, error) {
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
		return nil, fmt.Errorf("pull %s: %w", ref.FamiliarTagged(), err)
	}
	refs := []images.Reference{ref}
	if o.AllTags {
		if refs, err = allTags(ctx, repo, ref, name); err != nil {
			return nil, err
		}
	}
	var all []Pulled
	for _, ref := range refs {
		pulled, err := e.pull(ctx, repo, ref, o)
		if err != nil {
			return all, err
		}
		all = append(all, pulled)
	}
	return all, nil
}

// allTags lists the images of a repository.
func allTags(ctx context.Context, repo *registry.Repository, ref images.Reference, name string) ([]images.Reference, error) {
	bare := ref
	bare.Tag, bare.Digest = "latest", ""
	if again, err := images.ParseReference(bare.FamiliarRepository()); ref.Digest != "" || err != nil || again.Tag != ref.Tag {
		return nil, hint.Errorf("leave out the tag or the flag", "pull %s: a tag can't be used with --all-tags", name)
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return nil, fmt.Errorf("pull %s: list its tags: %w", bare.FamiliarRepository(), err)
	}
	slices.Sort(tags)
	var refs []images.Reference
	for _, tag := range tags {
		one, err := images.ParseReference(ref.Repository() + ":" + tag)
		if err != nil {
			return nil, fmt.Errorf("pull %s: the registry's list of tags: %w", bare.FamiliarRepository(), err)
		}
		refs = append(refs, one)
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("pull %s: the repository has no tags", bare.FamiliarRepository())
	}
	return refs, nil
}

func (e *Engine) pull(ctx context.Context, repo *registry.Repository, ref images.Reference, o PullOptions) (Pulled, error) {
	begun := func() {
		if o.Begun != nil {
			o.Begun(ref)
		}
	}
	pins := e.pins(ctx)
	defer pins.release()
	pulled, err := e.images.Pull(ctx, repo, ref, images.PullOptions{
		Platform: o.Platform, Progress: e.progress(), Begun: begun, Layer: o.Layer, Unpack: pins.unpackArriving,
	})
	if err != nil {
		return Pulled{}, err
	}
	e.imageEvent("pull", pulled.Image.ID, ref.FamiliarTagged())
	done := Pulled{pulled, ref}
	if o.Done != nil {
		o.Done(done)
	}
	return done, nil
}

// imageOf finds the image of a container that is made, and pulls it as the
// options say.
func (e *Engine) imageOf(ctx context.Context, o RunOptions) (images.Image, error) {
	if o.Pull != PullAlways {
		img, err := e.resolve(ctx, o.Image)
		_, notName := images.ParseReference(o.Image)
		switch {
		case err == nil:
			wrong := e.images.CheckFor(img, o.PullOptions.Platform)
			// Of an image of several platforms the store has another.
			if !errors.Is(wrong, images.ErrPlatform) || o.Pull == PullNever || notName != nil {
				return img, wrong
			}
		case o.Pull == PullNever, !errors.Is(err, images.ErrNotFound), notName != nil: // an ID is nothing to pull
			return img, err
		default:
			// The registries configuration may know the name as another's.
			if img, err := e.resolveAlias(ctx, o.Image); err == nil && e.images.CheckFor(img, o.PullOptions.Platform) == nil {
				return img, nil
			}
		}
	}
	pulled, err := e.Pull(ctx, o.Image, o.PullOptions)
	if err != nil {
		return images.Image{}, err
	}
	return pulled[0].Image, nil
}

func (e *Engine) resolveAlias(ctx context.Context, name string) (images.Image, error) {
	config, err := registry.ReadConfig(registriesFiles()...)
	if err != nil {
		return images.Image{}, err
	}
	ref, err := unalias(config, name)
	if err != nil {
		return images.Image{}, err
	}
	return e.resolve(ctx, ref.String())
}
