package engine

import (
	"context"
	"fmt"

	"nook/images/layers"
)

// Change is a difference between a container's files and its image's.
type Change = layers.Change

// Diff lists what a container changed, in the order of its paths. What nook
// puts into each container (/proc, /dev, /etc/hosts and the like) is no change.
func (e *Engine) Diff(ctx context.Context, nameOrID string) ([]Change, error) {
	t, err := e.tree(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	defer t.close()
	list := []Change{}
	err = e.treeStage(ctx, t, e.treeJob(t, jobChanges), -1, false, func(ev event) {
		list = append(list, ev.Changes...)
	})
	if err != nil {
		return nil, fmt.Errorf("diff %s: %w", t.cfg.Name, err)
	}
	return list, nil
}
