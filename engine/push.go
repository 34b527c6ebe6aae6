package engine

import (
	"context"
	"fmt"

	"nook/images"
	"nook/internal/hint"
)

// PushOptions says what Push sends and who hears of it.
type PushOptions struct {
	AllTags bool // every tag that the store has of the repository
	// Begun, if set, is told the repository.
	Begun func(repository string)
	// Layer, if set, is told what becomes of each layer. It is called from
	// several goroutines.
	Layer func(digest string, state images.LayerState)
}

// Pushed is an image that went to a registry, and the name it went by.
type Pushed struct {
	images.Pushed
	Ref images.Reference
}

// Push sends an image of the store, by its name, to the registry of the name.
// Those that were sent before an error are returned with it.
func (e *Engine) Push(ctx context.Context, name string, o PushOptions) ([]Pushed, error) {
	ref, err := images.ParseReference(name)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, hint.Errorf("push it by a tag", "push %s: a digest is no name to push to", name)
	}
	refs := []images.Reference{ref}
	if o.AllTags {
		if refs, err = e.tagsOf(name, ref); err != nil {
			return nil, err
		}
	}
	if err := e.ensureHello(ctx, name); err != nil {
		return nil, err
	}
	client, _, err := remotes(nil)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	repo, err := client.Repository(ref.Registry, ref.Path)
	if err != nil {
		return nil, fmt.Errorf("push %s: %w", ref.FamiliarTagged(), err)
	}
	if o.Begun != nil {
		o.Begun(ref.Repository())
	}
	var all []Pushed
	for _, ref := range refs {
		pushed, err := e.images.Push(ctx, repo, ref, images.PushOptions{Progress: e.progress(), Layer: o.Layer})
		if err != nil {
			return all, err
		}
		all = append(all, Pushed{pushed, ref})
		if img, err := e.images.Resolve(ref.String()); err == nil {
			e.imageEvent("push", img.ID, ref.FamiliarTagged())
		}
	}
	return all, nil
}

func (e *Engine) tagsOf(name string, ref images.Reference) ([]images.Reference, error) {
	if ref.FamiliarTagged() == name {
		return nil, hint.Errorf("leave out the tag or the flag", "push %s: a tag can't be used with --all-tags", name)
	}
	refs, err := e.images.TagsOf(ref)
	if err == nil && len(refs) == 0 {
		err = hint.Errorf("nook images lists what is here", "push %s: %w", name, images.ErrNotFound)
	}
	return refs, err
}
