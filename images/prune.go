package images

import (
	"context"
	"slices"
)

// PruneOptions says which images Prune removes.
type PruneOptions struct {
	// All removes images with names too, as long as no container uses them.
	All bool
	// Filter chooses among them; it knows no names.
	Filter Filter
	// InUse names the containers that use an image: see RemoveOptions.
	InUse func(Image) []string
}

// Prune removes the images that have no name, or all that no container uses.
func (s *Store) Prune(ctx context.Context, opts PruneOptions) (Removal, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return Removal{}, err
	}
	defer unlock()
	list, err := s.Select(ctx, opts.Filter)
	if err != nil {
		return Removal{}, err
	}
	idx, err := s.readIndex()
	if err != nil {
		return Removal{}, err
	}
	var plan removalPlan
	for _, img := range list {
		if len(img.Names) > 0 && !opts.All || opts.InUse != nil && len(opts.InUse(img)) > 0 {
			continue
		}
		plan.names = append(plan.names, img.Names...)
		plan.images = append(plan.images, img.Manifest.Digest)
	}
	if len(plan.images) == 0 {
		return Removal{}, nil
	}
	left, gone := idx.apply(plan)
	if err := s.writeIndex(left); err != nil {
		return Removal{}, err
	}
	slices.Sort(plan.names)
	removal := Removal{Untagged: plan.names}
	s.dropBlobs(left, gone, &removal)
	return removal, nil
}
