package engine

import (
	"context"
	"slices"

	"nook/images"
)

// Usage is how much of the disk one kind of things takes, in bytes.
type Usage struct {
	Total  int
	Active int // that containers use, or of containers: that run
	Size   int64
	// Reclaimable is what pruning with --all frees.
	Reclaimable int64
}

// ImageUsage is an image with what it takes: its blobs and unpacked layers.
type ImageUsage struct {
	images.Image
	Shared     int64 // with other images
	Unique     int64
	Containers int
}

// VolumeUsage is a volume with what its files take.
type VolumeUsage struct {
	VolumeInfo
	Size int64
}

// DiskUsage is what nook takes of the disk.
type DiskUsage struct {
	Images, Containers, Volumes Usage
	BuildCache                  Usage // without what images have too
	ImageList                   []ImageUsage
	ContainerList               []Summary
	VolumeList                  []VolumeUsage
}

// DiskUsage counts what images, containers and volumes take.
func (e *Engine) DiskUsage(ctx context.Context) (*DiskUsage, error) {
	u := &DiskUsage{}
	if err := e.volumeUsage(ctx, u); err != nil {
		return nil, err
	}
	var err error
	if u.ContainerList, err = e.List(ctx, ListOptions{All: true, Size: true}); err != nil {
		return nil, err
	}
	users := map[string]int{} // by image
	for _, c := range u.ContainerList {
		u.Containers.Total++
		u.Containers.Size += c.Size
		if c.State.Status.Live() {
			u.Containers.Active++
		} else {
			u.Containers.Reclaimable += c.Size
		}
		users[c.ImageID]++
	}
	list, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	e.imageUsage(u, list, users)
	u.BuildCache, err = e.buildUsage(ctx)
	return u, err
}

// volumeUsage counts volumes. Those whose records are damaged are system check's.
func (e *Engine) volumeUsage(ctx context.Context, u *DiskUsage) error {
	list, err := e.Volumes(ctx, VolumeFilter{})
	if list == nil {
		return err
	}
	names := make([]string, 0, len(list))
	for _, v := range list {
		names = append(names, v.Name)
	}
	sizes, err := e.VolumeSizes(ctx, names)
	if err != nil {
		return err
	}
	for i, v := range list {
		u.VolumeList = append(u.VolumeList, VolumeUsage{v, sizes[i]})
		u.Volumes.Total++
		u.Volumes.Size += sizes[i]
		if len(v.Users) > 0 {
			u.Volumes.Active++
		} else {
			u.Volumes.Reclaimable += sizes[i]
		}
	}
	return nil
}

// part is a blob or an unpacked layer.
type part struct {
	size  int64
	count int // of the images that have it
	used  bool
}

func (e *Engine) imageUsage(u *DiskUsage, list []images.Image, users map[string]int) {
	all := map[string]*part{}
	parts := make([][]string, len(list))
	for i, img := range list {
		sizes := e.partsOf(img)
		for name, size := range sizes {
			if all[name] == nil {
				all[name] = &part{size: size}
				u.Images.Size += size
			}
			all[name].count++
			all[name].used = all[name].used || users[img.ID] > 0
			parts[i] = append(parts[i], name)
		}
	}
	for i, img := range list {
		row := ImageUsage{Image: img, Containers: users[img.ID]}
		for _, name := range parts[i] {
			if all[name].count > 1 {
				row.Shared += all[name].size
			} else {
				row.Unique += all[name].size
			}
		}
		u.ImageList = append(u.ImageList, row)
		u.Images.Total++
		if row.Containers > 0 {
			u.Images.Active++
		}
	}
	for _, p := range all {
		if !p.used {
			u.Images.Reclaimable += p.size
		}
	}
}

// partsOf gives the sizes of what can be read of an image: system check tells
// of the rest.
func (e *Engine) partsOf(img images.Image) map[string]int64 {
	parts := map[string]int64{}
	blobs, err := e.images.Blobs(img)
	if err != nil {
		return parts
	}
	for _, b := range blobs {
		parts[b.Digest] = b.Size
	}
	cfg, err := e.images.Config(img)
	if err != nil {
		return parts
	}
	chain, err := e.layers.Chain(cfg.RootFS.DiffIDs)
	if err != nil {
		return parts
	}
	if sizes, err := e.layers.Sizes(cfg.RootFS.DiffIDs); err == nil {
		for i, key := range chain.Keys {
			parts["layer "+key] = sizes[i]
		}
	}
	return parts
}

// SystemPruneOptions say what PruneSystem removes.
type SystemPruneOptions struct {
	Containers PruneOptions
	Images     ImagePruneOptions
	// Volumes are left alone if it is nil.
	Volumes *PruneVolumesOptions
}

// PrunedSystem is what PruneSystem did.
type PrunedSystem struct {
	Containers []string // ids
	Volumes    []string // names
	Images     PrunedImages
	Steps      []string // of the build cache
	Bytes      int64    // of everything
}

// PruneSystem removes the containers that don't run, volumes and images that
// nothing needs, and what killed commands left. What was removed before an error is told with
// it.
func (e *Engine) PruneSystem(ctx context.Context, o SystemPruneOptions) (PrunedSystem, error) {
	var done PrunedSystem
	gone, err := e.Prune(ctx, o.Containers)
	done.Containers, done.Bytes = slices.Clone(gone.IDs), gone.Bytes
	if err != nil {
		return done, err
	}
	if o.Volumes != nil {
		gone, err := e.PruneVolumes(ctx, *o.Volumes)
		done.Volumes, done.Bytes = gone.Names, done.Bytes+gone.Bytes
		if err != nil {
			return done, err
		}
	}
	done.Images, err = e.PruneImages(ctx, o.Images)
	done.Bytes += done.Images.Bytes
	if err != nil {
		return done, err
	}
	freed, err := e.images.Collect(ctx)
	done.Bytes += freed
	if err != nil || len(o.Containers.Labels)+len(o.Containers.NotLabels) > 0 { // steps have no labels
		return done, err
	}
	steps, err := e.PruneBuilds(ctx, BuildPruneOptions{All: o.Images.All, Until: o.Containers.Until})
	done.Steps, done.Bytes = steps.IDs, done.Bytes+steps.Bytes
	return done, err
}
