package engine

import (
	"context"
	"errors"
	"fmt"

	"nook/containers"
	"nook/internal/hint"
)

// ErrRunning says that a container runs.
var ErrRunning = errors.New("container is running")

// RemoveContainer removes a container that doesn't run, with its writable
// layer, and returns what it was called by. It is found by name, id or unique
// prefix of an id.
func (e *Engine) RemoveContainer(ctx context.Context, nameOrID string) error {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	state, err := ct.State()
	if err != nil {
		return err
	}
	if state.Status == containers.Running {
		return hint.Errorf(fmt.Sprintf("its first process is %d on this host: end that first", state.Pid), "remove container %s: %w", nameOrID, ErrRunning)
	}
	cfg, err := ct.Config()
	if err != nil {
		return err
	}
	if err := e.checkIDs(cfg); err != nil {
		return err
	}
	if err := e.stage(ctx, request{Remove: ct.ID, Name: cfg.Name}, nil); err != nil {
		return fmt.Errorf("remove container %s: %w", nameOrID, err)
	}
	return nil
}

// checkIDs refuses a container of another id mode: its files belong to ids
// that this one doesn't have.
func (e *Engine) checkIDs(cfg *containers.Config) error {
	if cfg.IDs == string(e.ids.Mode) {
		return nil
	}
	return hint.Errorf("use --ids "+cfg.IDs, "container %s was made with %s ids, and these are %s", cfg.Name, cfg.IDs, e.ids.Mode)
}
