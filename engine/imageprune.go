package engine

import (
	"context"

	"nook/containers"
	"nook/images"
)

// FindImages lists the images of the store that the filter chooses.
func (e *Engine) FindImages(ctx context.Context, f images.Filter) ([]images.Image, error) {
	return e.images.Select(ctx, f)
}

// ImagePruneOptions say which images PruneImages removes.
type ImagePruneOptions struct {
	// All: also those with a name that no container uses.
	All    bool
	Filter images.Filter
}

// PrunedImages is what PruneImages did.
type PrunedImages struct {
	Untagged []string // names as docker shows them
	Deleted  []string // ids
	Bytes    int64    // of blobs and unpacked layers
}

// PruneImages removes images that have no name, or all that no container uses,
// with what of them no other has.
func (e *Engine) PruneImages(ctx context.Context, o ImagePruneOptions) (PrunedImages, error) {
	named := map[string]string{} // by full name, for the events
	if all, err := e.images.List(ctx); err == nil {
		for _, img := range all {
			for _, name := range img.Names {
				named[name] = img.ID
			}
		}
	}
	var users map[string][]string // by image; looked at once the index is locked
	removal, err := e.images.Prune(ctx, images.PruneOptions{All: o.All, Filter: o.Filter, InUse: func(img images.Image) []string {
		if users == nil {
			users = e.imageUsers()
		}
		return users[img.ID]
	}})
	if err != nil {
		return PrunedImages{}, err
	}
	done := PrunedImages{Deleted: removal.Deleted, Bytes: removal.Bytes}
	for _, name := range removal.Untagged {
		done.Untagged = append(done.Untagged, images.FamiliarName(name))
		e.imageEvent("untag", named[name], images.FamiliarName(name))
	}
	for _, id := range removal.Deleted {
		e.imageEvent("delete", id, id)
	}
	freed, err := e.collect(ctx)
	done.Bytes += freed
	return done, err
}

// runningOn names the containers of an image that run.
func (e *Engine) runningOn(img images.Image) []string {
	var names []string
	_ = e.eachContainer(func(ct containers.Container, cfg *containers.Config) {
		if state, err := ct.State(); cfg.ImageID == img.ID && err == nil && state.Status.Live() {
			names = append(names, cfg.Name)
		}
	})
	return names
}

// imageUsers names the containers of all images, by the images' ids.
func (e *Engine) imageUsers() map[string][]string {
	users := map[string][]string{}
	_ = e.eachContainer(func(_ containers.Container, cfg *containers.Config) {
		users[cfg.ImageID] = append(users[cfg.ImageID], cfg.Name)
	})
	return users
}
