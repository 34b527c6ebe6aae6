package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"nook/containers"
	"nook/internal/hint"
)

// ErrRestartPolicy says that a text is no restart policy.
var ErrRestartPolicy = errors.New("invalid restart policy")

// ParseRestartPolicy reads no, always, unless-stopped and on-failure[:N], as
// docker's --restart has them. "" is no.
func ParseRestartPolicy(s string) (containers.RestartPolicy, error) {
	refuse := hint.Errorf("no, always, unless-stopped and on-failure[:TIMES] are known", "%w: %q", ErrRestartPolicy, s)
	name, times, counted := strings.Cut(s, ":")
	switch name {
	case "", "no", "always", "unless-stopped":
		if counted {
			return containers.RestartPolicy{}, hint.Errorf("on-failure alone has a number of times", "%w: %q", ErrRestartPolicy, s)
		}
		if name == "" {
			name = "no"
		}
		return containers.RestartPolicy{Name: name}, nil
	case "on-failure":
		n, err := strconv.Atoi(times)
		if counted && (err != nil || n < 0) {
			return containers.RestartPolicy{}, refuse
		}
		return containers.RestartPolicy{Name: name, Retries: n}, nil
	}
	return containers.RestartPolicy{}, refuse
}

// UpdateOptions say what changes of a container; nil stays.
type UpdateOptions struct {
	Restart *containers.RestartPolicy
}

// Update changes a container, also while it runs: its monitor looks when it
// needs to know.
func (e *Engine) Update(_ context.Context, nameOrID string, o UpdateOptions) error {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	var updated *containers.Config
	err = ct.Edit(func(cfg *containers.Config) error {
		if o.Restart != nil {
			if cfg.Remove && o.Restart.Wanted() {
				return hint.Errorf("a container that is removed at its end can't be started again",
					"it has --rm, which excludes restart policy %q", o.Restart.Name)
			}
			cfg.Restart = *o.Restart
		}
		updated = cfg
		return nil
	})
	if err != nil {
		return e.noRoom(fmt.Errorf("update container %s: %w", nameOrID, err))
	}
	e.event("update", updated)
	return nil
}
