package images

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"nook/internal/hint"
)

// RemoveOptions says how far Remove may go.
type RemoveOptions struct {
	// Force removes an image with all its names when it is given by ID, also
	// when containers use it that don't run; given by its last name, an image
	// that containers use stays without one.
	Force bool
	// InUse, if set, names the containers that use an image. It is called with
	// the index locked, before the image goes.
	InUse func(Image) []string
	// Running, if set, names those of them that run.
	Running func(Image) []string
}

// Removal is what Remove did.
type Removal struct {
	Untagged []string // full names that are gone
	Deleted  []string // IDs of images that are gone
	// DiffIDs and ChainIDs are those of the deleted images' layers that no
	// image of the store has any more: what was unpacked of them can go.
	DiffIDs  []string
	ChainIDs []string
	// Bytes are of the blobs that are gone.
	Bytes int64
}

// Remove does what docker rmi does. Given a name, it takes the name away; with
// its last name the image goes too. Given an ID, the image goes with its name,
// and with several names only by force. The blobs that no other image needs go
// with it.
func (s *Store) Remove(ctx context.Context, nameOrID string, opts RemoveOptions) (Removal, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return Removal{}, err
	}
	defer unlock()
	idx, err := s.readIndex()
	if err != nil {
		return Removal{}, err
	}
	plan, err := planRemoval(s.images(idx), nameOrID, opts)
	if err != nil {
		return Removal{}, err
	}
	left, gone := idx.apply(plan)
	if err := s.writeIndex(left); err != nil {
		return Removal{}, err
	}
	removal := Removal{Untagged: plan.names}
	if len(gone) > 0 {
		s.dropBlobs(left, gone, &removal)
	}
	return removal, nil
}

// removalPlan is decided first and applied then.
type removalPlan struct {
	names   []string // to be taken away
	images  []string // manifest digests of the images that go
	unnamed []string // manifest digests of those that stay, without a name
}

func planRemoval(list []Image, nameOrID string, opts RemoveOptions) (removalPlan, error) {
	img, err := Find(list, nameOrID)
	if err != nil {
		return removalPlan{}, err
	}
	names, byID := namesGiven(img, nameOrID)
	plan := removalPlan{names: names}
	given := []Image{img}
	if byID {
		given = given[:0]
		for _, other := range list {
			if other.ID == img.ID {
				given = append(given, other)
				plan.names = append(plan.names, other.Names...)
			}
		}
	}
	if len(plan.names) > 1 && !opts.Force {
		return removalPlan{}, hint.Errorf("remove the names one by one, or all with -f",
			"remove image %s: %w under several names: %s", ShortID(img.ID), ErrInUse, familiar(plan.names))
	}
	for _, img := range given {
		if slices.ContainsFunc(img.Names, func(name string) bool { return !slices.Contains(plan.names, name) }) {
			continue // it keeps a name
		}
		users := []string(nil)
		if opts.InUse != nil && !hasTwin(list, given, img) {
			users = opts.InUse(img)
		}
		switch {
		case len(users) == 0:
			plan.images = append(plan.images, img.Manifest.Digest)
		case opts.Force && byID:
			if running := opts.running(img); len(running) > 0 {
				return removalPlan{}, hint.Errorf("stop them first: nook stop "+strings.Join(running, " "),
					"remove image %s: %w by running container %s", label(img), ErrInUse, strings.Join(running, ", "))
			}
			plan.images = append(plan.images, img.Manifest.Digest)
		case opts.Force && len(img.Names) > 0:
			plan.unnamed = append(plan.unnamed, img.Manifest.Digest)
		default:
			return removalPlan{}, hint.Errorf("remove them first: nook rm "+strings.Join(users, " "),
				"remove image %s: %w by container %s", label(img), ErrInUse, strings.Join(users, ", "))
		}
	}
	return plan, nil
}

func (o RemoveOptions) running(img Image) []string {
	if o.Running == nil {
		return nil
	}
	return o.Running(img)
}

// namesGiven tells which names of img a name or ID stands for; for an ID the
// caller takes them all.
func namesGiven(img Image, nameOrID string) (names []string, byID bool) {
	ref, err := ParseReference(nameOrID)
	if err != nil || strings.HasPrefix(nameOrID, digestPrefix) {
		return nil, true
	}
	if slices.Contains(img.Names, ref.String()) {
		return []string{ref.String()}, false
	}
	if ref.Digest == "" {
		return nil, true
	}
	return namesIn(img, ref.Repository()), false
}

// hasTwin says whether another manifest with the config of img stays.
func hasTwin(list, given []Image, img Image) bool {
	for _, other := range list {
		if other.ID == img.ID && !slices.ContainsFunc(given, func(g Image) bool { return g.Manifest.Digest == other.Manifest.Digest }) {
			return true
		}
	}
	return false
}

func familiar(names []string) string {
	short := make([]string, len(names))
	for i, name := range names {
		short[i] = FamiliarName(name)
	}
	return strings.Join(short, ", ")
}

// apply splits the index into what stays and what goes.
func (idx *index) apply(plan removalPlan) (left *index, gone []Descriptor) {
	after := *idx
	after.Manifests = nil
	unnamed := make(map[string]bool)
	for _, entry := range idx.Manifests {
		switch {
		case slices.Contains(plan.images, entry.Digest):
			gone = append(gone, entry)
		case slices.Contains(plan.unnamed, entry.Digest):
			if !unnamed[entry.Digest] {
				after.Manifests = append(after.Manifests, withName(entry, ""))
			}
			unnamed[entry.Digest] = true
		case entryName(entry) != "" && slices.Contains(plan.names, entryName(entry)):
		default:
			after.Manifests = append(after.Manifests, entry)
		}
	}
	return &after, gone
}

// dropBlobs removes the blobs of the entries that are gone, as far as nothing
// else refers to them, and reports what went. The index is written already: a
// kill in here leaves blobs that cost space and nothing else. What can't be
// read is taken to refer to everything.
func (s *Store) dropBlobs(left *index, gone []Descriptor, removal *Removal) {
	stays := s.images(left)
	dead := s.images(&index{Manifests: gone})
	for _, img := range dead {
		known := func(other Image) bool { return other.ID == img.ID }
		if !slices.ContainsFunc(stays, known) && !slices.Contains(removal.Deleted, img.ID) {
			removal.Deleted = append(removal.Deleted, img.ID)
		}
	}
	deadDiffs, deadChains, _ := s.layerIDs(dead)
	if diffs, chains, err := s.layerIDs(stays); err == nil {
		removal.DiffIDs = without(deadDiffs, diffs)
		removal.ChainIDs = without(deadChains, chains)
	}
	used, err := s.reachable(left)
	if err != nil {
		return
	}
	candidates := make(map[string]bool)
	_ = s.reach(gone, candidates, 0) // as far as it can be read
	for digest := range candidates {
		if checkDigest(digest) == nil && !used[digest] {
			removal.Bytes += s.removeBlob(digest)
		}
	}
}

// removeBlob tells how many bytes that frees.
func (s *Store) removeBlob(digest string) int64 {
	info, err := os.Lstat(s.blobPath(digest))
	if err != nil || os.Remove(s.blobPath(digest)) != nil {
		return 0
	}
	return info.Size()
}

// layerIDs lists the diff ids and the chain ids of images. Those it can read
// are there with an error too.
func (s *Store) layerIDs(list []Image) (diffs, chains []string, err error) {
	for _, img := range list {
		cfg, cfgErr := s.Config(img)
		if cfgErr != nil {
			err = fmt.Errorf("image %s: %w", ShortID(img.ID), cfgErr)
			continue
		}
		diffs = append(diffs, cfg.RootFS.DiffIDs...)
		chains = append(chains, chainIDs(cfg.RootFS.DiffIDs)...)
	}
	return diffs, chains, err
}

// without is list less what is in other, each once.
func without(list, other []string) []string {
	seen := make(map[string]bool, len(other))
	for _, s := range other {
		seen[s] = true
	}
	var kept []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			kept = append(kept, s)
		}
	}
	return kept
}
