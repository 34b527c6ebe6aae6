package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"nook/containers/events"
	"nook/rootfs/volumes"
)

// Volumes is the store beside the containers.
func (d Dir) Volumes() volumes.Store {
	return volumes.Open(filepath.Join(filepath.Dir(d.path), "volumes"))
}

// AnonymousVolumes are the volumes that were made for this container, or for
// one whose volumes it took over.
func (c *Config) AnonymousVolumes() []string {
	var out []string
	for _, m := range c.Mounts {
		if m.Anonymous {
			out = append(out, m.Name)
		}
	}
	return out
}

// VolumeUsers are the ids of the containers that have each volume, but for those
// that killed commands left and a sweep takes. A record that is damaged is an
// error: it may name any.
func (d Dir) VolumeUsers() (map[string][]string, error) {
	list, err := d.List()
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, c := range list {
		cfg, err := c.Config()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is being removed
		}
		if err != nil {
			if short, _ := c.CutShort(); short {
				continue // of one that was killed before it was made
			}
			return nil, err
		}
		names := cfg.volumes()
		if len(names) == 0 || c.swept(cfg) {
			continue
		}
		for _, name := range names {
			users[name] = append(users[name], c.ID)
		}
	}
	return users, nil
}

// volumes are the names of a container's volumes, each once.
func (c *Config) volumes() []string {
	var out []string
	for _, m := range c.Mounts {
		if m.Type == "volume" && !slices.Contains(out, m.Name) {
			out = append(out, m.Name)
		}
	}
	return out
}

// swept tells whether the next sweep takes the container.
func (c Container) swept(cfg *Config) bool {
	if !cfg.Remove {
		return false
	}
	state, err := c.State()
	return err == nil && c.Abandoned(true, state)
}

// dropTime is how long the removal of a container waits for those that make
// others.
const dropTime = 10 * time.Second

// DropVolumes removes the anonymous volumes of a container that is about to be
// removed, but those that another has too. In a stage or monitor only, as
// Remove: elsewhere files of other ids stay for a sweep, with an error.
func (c Container) DropVolumes(cfg *Config) error {
	names := cfg.AnonymousVolumes()
	if len(names) == 0 {
		return nil
	}
	store := c.dir.Volumes()
	ctx, cancel := context.WithTimeout(context.Background(), dropTime)
	defer cancel()
	done, err := store.Change(ctx)
	if err != nil {
		return fmt.Errorf("remove the volumes of container %.12s: %w", c.ID, err)
	}
	defer done()
	users, err := c.dir.VolumeUsers()
	if err != nil {
		return fmt.Errorf("remove the volumes of container %.12s: %w", c.ID, err)
	}
	var gone []string
	for _, name := range names {
		if slices.ContainsFunc(users[name], func(id string) bool { return id != c.ID }) {
			continue
		}
		dir, err := store.Detach(name)
		if errors.Is(err, volumes.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		gone = append(gone, dir)
		_ = events.Append(filepath.Dir(c.dir.path), events.Volume("destroy", name))
	}
	done() // files may take their time
	for _, dir := range gone {
		err = errors.Join(err, store.Remove(dir))
	}
	return err
}
