package engine

import (
	"context"
	"os"
	"path/filepath"

	"nook/containers"
	"nook/images/layers"
)

// What a stage does, inside the user namespace.

func (s *stageRun) unpack(ctx context.Context, store *layers.Store) (event, error) {
	var sources []layers.Source
	for _, u := range s.req.Unpack {
		sources = append(sources, s.source(ctx, u))
	}
	chain, err := store.Unpack(ctx, sources, func(_ string, read int64) {
		s.tell(event{Add: read})
	})
	if err != nil {
		return event{}, err
	}
	for _, n := range chain.Notes {
		s.tell(event{Note: n})
	}
	return event{}, nil
}

func (s *stageRun) removeDetached(ctx context.Context) error {
	store := containers.Open(containersDir(s.req.Root)).Volumes()
	for _, dir := range s.req.Detached {
		if err := store.Remove(dir); err != nil {
			return err
		}
	}
	if s.req.SweepVolumes {
		if err := store.Tidy(ctx); err != nil {
			return err
		}
	}
	return store.Sweep()
}

func (s *stageRun) flatten(ctx context.Context, store *layers.Store) error {
	dst := filepath.Join(containersDir(s.req.Root), s.req.Flatten.Container, "rootfs")
	if err := os.Mkdir(dst, 0o755); err != nil {
		return err
	}
	var dirs []string
	for _, key := range s.req.Flatten.Layers {
		dirs = append(dirs, store.Dir(key))
	}
	if err := layers.Flatten(ctx, dst, dirs); err != nil {
		return err
	}
	// No overlay, no writable layer: an empty one would say that the container
	// wrote nothing.
	return os.Remove(filepath.Join(filepath.Dir(dst), "upper"))
}
