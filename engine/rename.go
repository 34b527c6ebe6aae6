package engine

import (
	"context"
	"fmt"
	"strings"

	"nook/containers"
	"nook/containers/events"
	"nook/internal/hint"
)

// Rename gives a container another name, also while it runs.
func (e *Engine) Rename(_ context.Context, nameOrID, name string) error {
	name = strings.TrimPrefix(name, "/") // as docker shows it
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	var renamed containers.Config
	var old string
	err = ct.Edit(func(cfg *containers.Config) error {
		old, renamed = cfg.Name, *cfg
		if name == cfg.Name {
			return hint.Errorf("choose another one", "it is called so already")
		}
		cfg.Name, renamed.Name = name, name
		return nil
	})
	if err != nil {
		return e.noRoom(fmt.Errorf("rename container %s: %w", nameOrID, err))
	}
	_ = events.Append(e.root, events.Container("rename", renamed.ID, name, renamed.Image, renamed.Labels, "oldName", "/"+old))
	return nil
}
