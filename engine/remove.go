package engine

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
)

// ErrRunning says that a container runs.
var ErrRunning = errors.New("container is running")

// RemoveOptions say what goes with a container.
type RemoveOptions struct {
	// Force ends one that runs first, by SIGKILL.
	Force bool
	// Volumes: those go too that were made for it without a name, and that no
	// other container has.
	Volumes bool
}

// RemoveContainer removes a container with its writable layer. It is found by
// name, id or unique prefix of an id. One that runs is refused (ErrRunning)
// without Force.
func (e *Engine) RemoveContainer(ctx context.Context, nameOrID string, o RemoveOptions) error {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	lock, err := e.waitUnowned(ctx, ct)
	if o.Force && (errors.Is(err, ErrRunning) || errors.Is(err, containers.ErrBusy)) {
		lock, err = e.end(ctx, ct)
	}
	if o.Force && errors.Is(err, containers.ErrNotFound) {
		return nil // it had --rm
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", nameOrID, err)
	}
	defer lock.Release()
	cfg, err := ct.Config()
	if err != nil {
		lock.Release()
		if is, held := ct.CutShort(); is && !held {
			return e.stage(ctx, request{Sweep: []string{ct.ID}}, nil)
		}
		return err
	}
	if err := e.checkIDs(cfg); err != nil {
		return err
	}
	if state, err := ct.State(); err == nil {
		ct.RemoveSocket(state)
	}
	if err := e.stage(ctx, request{Remove: ct.ID, Name: cfg.Name, Volumes: o.Volumes || cfg.Remove}, nil); err != nil {
		return fmt.Errorf("remove container %s: %w", nameOrID, err)
	}
	e.event("destroy", cfg)
	return nil
}

// end kills a container that runs and takes it.
func (e *Engine) end(ctx context.Context, ct containers.Container) (*containers.Lock, error) {
	none := 0
	_, err := askMonitor(ctx, ct, containers.Request{Verb: containers.VerbStop, Signal: int(unix.SIGKILL), Timeout: &none})
	if errors.Is(err, containers.ErrNoMonitor) {
		err = withoutSocket(ctx, ct)
	}
	if err != nil && !errors.Is(err, ErrNotRunning) {
		return nil, err
	}
	return e.waitUnowned(ctx, ct)
}

// checkIDs refuses a container of another id mode: its files belong to ids
// that this one doesn't have.
func (e *Engine) checkIDs(cfg *containers.Config) error {
	if cfg.IDs == string(e.ids.Mode) {
		return nil
	}
	return hint.Errorf("use --ids "+cfg.IDs, "container %s was made with %s ids, and these are %s", cfg.Name, cfg.IDs, e.ids.Mode)
}
