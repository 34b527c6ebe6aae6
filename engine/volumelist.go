package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"nook/containers"
	"nook/containers/events"
	"nook/rootfs/volumes"
)

// VolumeInfo is a volume with what is known of it besides its record.
type VolumeInfo struct {
	volumes.Volume
	Mountpoint string   // where its files are
	Users      []string // ids of the containers that have it
}

// VolumeFilter says which volumes are wanted; the zero value: all.
type VolumeFilter struct {
	Names             []string // parts of the name, of which one must match
	Labels, NotLabels []string // KEY or KEY=VALUE
	Drivers           []string
	Dangling          *bool // that no container has
}

// ParseVolumeFilter reads docker's --filter of volume ls.
func ParseVolumeFilter(flags []string) (VolumeFilter, error) {
	var f VolumeFilter
	filters, err := ParseFilters(flags)
	if err != nil {
		return f, err
	}
	for key, values := range filters {
		switch key {
		case "name":
			f.Names = values
		case "label":
			f.Labels = values
		case "label!":
			f.NotLabels = values
		case "driver":
			f.Drivers = values
		case "dangling":
			var on bool
			for _, v := range values {
				switch v {
				case "true", "1":
					on = true
				case "false", "0":
				default:
					return f, fmt.Errorf("filter dangling=%s: %w", v, ErrFilter)
				}
			}
			f.Dangling = &on
		default:
			return f, fmt.Errorf("filter %q: %w", key, ErrFilter)
		}
	}
	return f, nil
}

func (f VolumeFilter) wants(v VolumeInfo) bool {
	if len(f.Names) > 0 && !slices.ContainsFunc(f.Names, func(part string) bool { return strings.Contains(v.Name, part) }) {
		return false
	}
	return hasLabels(v.Labels, f.Labels) && (len(f.NotLabels) == 0 || !hasLabels(v.Labels, f.NotLabels)) &&
		(len(f.Drivers) == 0 || slices.Contains(f.Drivers, v.Driver)) &&
		(f.Dangling == nil || *f.Dangling == (len(v.Users) == 0))
}

// anonymousLabel is what docker's users know an anonymous volume by.
const anonymousLabel = "com.docker.volume.anonymous"

// Volumes lists volumes by name. With an error, which tells of damaged records,
// the others are there.
func (e *Engine) Volumes(_ context.Context, f VolumeFilter) ([]VolumeInfo, error) {
	list, damage := e.volumes.List()
	users, err := e.containers.VolumeUsers()
	if err != nil {
		return nil, err
	}
	out := []VolumeInfo{}
	for _, v := range list {
		if info := e.volumeInfo(v, users[v.Name]); f.wants(info) {
			out = append(out, info)
		}
	}
	return out, damage
}

func (e *Engine) volumeInfo(v volumes.Volume, users []string) VolumeInfo {
	if v.Anonymous {
		v.Labels = maps.Clone(v.Labels)
		if v.Labels == nil {
			v.Labels = map[string]string{}
		}
		v.Labels[anonymousLabel] = ""
	}
	return VolumeInfo{v, e.volumes.Data(v.Name), users}
}

// VolumeInspection is what docker volume inspect shows.
type VolumeInspection struct {
	CreatedAt  string // RFC 3339
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

// InspectVolume gives what docker volume inspect shows of a volume.
func (e *Engine) InspectVolume(_ context.Context, name string) (*VolumeInspection, error) {
	v, err := e.volumes.Get(name)
	if err != nil {
		return nil, err
	}
	info := e.volumeInfo(v, nil)
	const seconds = "2006-01-02T15:04:05Z07:00"
	return &VolumeInspection{
		CreatedAt: v.Created.Format(seconds), Driver: v.Driver, Labels: info.Labels,
		Mountpoint: info.Mountpoint, Name: v.Name, Options: v.Options, Scope: "local",
	}, nil
}

// VolumeSizes counts the bytes of volumes' files, in a stage. One that is gone
// has none.
func (e *Engine) VolumeSizes(ctx context.Context, names []string) ([]int64, error) {
	if len(names) == 0 {
		return nil, nil
	}
	var sizes []int64
	if err := e.stage(ctx, request{CountVolumes: names}, func(ev event) { sizes = append(sizes, ev.Sizes...) }); err != nil {
		return nil, fmt.Errorf("count the files of volumes: %w", err)
	}
	for len(sizes) < len(names) {
		sizes = append(sizes, 0)
	}
	return sizes, nil
}

// countVolumes is the stage's part.
func (s *stageRun) countVolumes(ctx context.Context) error {
	store := containers.Open(containersDir(s.req.Root)).Volumes()
	for _, name := range s.req.CountVolumes {
		n, err := countFiles(ctx, filepath.Clean(store.Data(name)))
		if err != nil {
			return err
		}
		s.tell(event{Sizes: []int64{n}})
	}
	return nil
}

// PruneVolumesOptions say which of the volumes that no container has go.
type PruneVolumesOptions struct {
	All               bool     // those with a name too, not only anonymous ones
	Labels, NotLabels []string // KEY or KEY=VALUE
}

// PrunedVolumes is what PruneVolumes removed.
type PrunedVolumes struct {
	Names []string
	Bytes int64
}

// PrunableVolumes tells what PruneVolumes would remove now.
func (e *Engine) PrunableVolumes(ctx context.Context, o PruneVolumesOptions) (PrunedVolumes, error) {
	names, sizes, err := e.prunable(ctx, o)
	out := PrunedVolumes{Names: names}
	for _, n := range sizes {
		out.Bytes += n
	}
	return out, err
}

func (e *Engine) prunable(ctx context.Context, o PruneVolumesOptions) (names []string, sizes []int64, err error) {
	dangling := true
	list, err := e.Volumes(ctx, VolumeFilter{Labels: o.Labels, NotLabels: o.NotLabels, Dangling: &dangling})
	if err != nil {
		return nil, nil, err
	}
	for _, v := range list {
		if o.All || v.Anonymous {
			names = append(names, v.Name)
		}
	}
	sizes, err = e.VolumeSizes(ctx, names)
	return names, sizes, err
}

// PruneVolumes removes volumes that no container has, and what killed commands
// left of others. One that a container takes meanwhile stays. What was removed
// before an error is told with it.
func (e *Engine) PruneVolumes(ctx context.Context, o PruneVolumesOptions) (PrunedVolumes, error) {
	var done PrunedVolumes
	names, sizes, err := e.prunable(ctx, o)
	if err != nil {
		return done, err
	}
	bytes := map[string]int64{}
	for i, name := range names {
		bytes[name] = sizes[i]
	}
	err = e.removeVolumes(ctx, names, func(name string) {
		done.Names = append(done.Names, name)
		done.Bytes += bytes[name]
	})
	_ = events.Append(e.root, events.VolumesPruned(done.Bytes))
	litter, lerr := e.volumes.Litter()
	if len(litter) > 0 && lerr == nil {
		lerr = e.stage(ctx, request{SweepVolumes: true}, nil)
	}
	return done, errors.Join(err, lerr)
}
