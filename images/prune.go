package images

import (
	"context"
	"fmt"
	"os"
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

// Collect removes what no image has: blobs that a kill left, staging
// directories of the dead, and downloads that nobody goes on with. It tells how
// many bytes that freed. Loads, pulls and commits under way lose nothing: what
// is theirs lies in staging directories of theirs until the index has it.
func (s *Store) Collect(ctx context.Context) (freed int64, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	s.sweep()
	s.SweepPartial(0)
	orphans, err := s.orphans()
	if err != nil {
		return 0, err
	}
	for _, digest := range orphans {
		freed += s.removeBlob(digest)
	}
	return freed, nil
}

// orphans lists the blobs that the index doesn't lead to. The caller holds the
// lock.
func (s *Store) orphans() ([]string, error) {
	idx, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	used, err := s.reachable(idx)
	if err != nil {
		return nil, fmt.Errorf("find unused blobs: %w", err)
	}
	entries, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return nil, fmt.Errorf("find unused blobs: %w", err)
	}
	var orphans []string
	for _, entry := range entries {
		digest := digestPrefix + entry.Name()
		if checkDigest(digest) == nil && !used[digest] {
			orphans = append(orphans, digest)
		}
	}
	return orphans, nil
}

// Blobs lists all blobs of an image: manifest, config, layers.
func (s *Store) Blobs(img Image) ([]Descriptor, error) {
	m, err := s.Manifest(img)
	if err != nil {
		return nil, err
	}
	return append([]Descriptor{img.Manifest, m.Config}, m.Layers...), nil
}
