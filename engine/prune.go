package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"nook/containers"
)

// PruneOptions say which of the containers that don't run stay.
type PruneOptions struct {
	// Until: those that were made later stay; zero: none.
	Until time.Time
	// Labels, KEY or KEY=VALUE: those without one of them stay; of NotLabels,
	// those that have one.
	Labels, NotLabels []string
}

// Pruned is what Prune did.
type Pruned struct {
	IDs   []string
	Bytes int64 // of the writable layers
}

// Prune removes the containers that don't run, as docker container prune does.
// One that is started meanwhile stays. What was removed before an error is
// told with it.
func (e *Engine) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var done Pruned
	all, err := e.List(ctx, ListOptions{All: true})
	if err != nil {
		return done, err
	}
	all = slices.DeleteFunc(all, func(c Summary) bool {
		return c.State.Status.Live() || !o.Until.IsZero() && c.Created.After(o.Until) ||
			!hasLabels(c.Labels, o.Labels) || len(o.NotLabels) > 0 && hasLabels(c.Labels, o.NotLabels)
	})
	if err := e.addSizes(ctx, all); err != nil {
		return done, err
	}
	ids := make([]string, len(all))
	sizes := make(map[string]int64, len(all))
	for i, c := range all {
		ids[i], sizes[c.ID] = c.ID, c.Size
	}
	var failed error
	for id, err := range e.RemoveContainers(ctx, ids, RemoveOptions{}) {
		switch {
		case errors.Is(err, ErrRunning), errors.Is(err, containers.ErrNotFound), errors.Is(err, containers.ErrBusy):
			continue
		case err != nil && failed == nil: // others of its batch may be gone
			failed = err
			continue
		case err != nil:
			continue
		}
		done.IDs = append(done.IDs, id)
		done.Bytes += sizes[id]
	}
	return done, failed
}
