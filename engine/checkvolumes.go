package engine

import (
	"context"
	"errors"
	"fmt"

	"nook/containers"
	"nook/internal/finding"
	"nook/rootfs/volumes"
)

// checkedVolumes is what Check found of volumes.
type checkedVolumes struct {
	count    int
	findings []finding.Finding
}

const fillKilled = "its first fill was killed"

// checkVolumes looks at the volumes. What is in them only their users know.
func (e *Engine) checkVolumes(ctx context.Context) (checkedVolumes, error) {
	var c checkedVolumes
	list, err := e.volumes.Check(ctx)
	if err != nil {
		return c, err
	}
	garbage := func(object, fact string) {
		c.findings = append(c.findings, finding.Finding{Object: object, Fact: fact, Garbage: true, Advice: "nook system check --repair"})
	}
	for _, v := range list {
		switch {
		case v.Litter:
			garbage("directory volumes/"+v.Name, "was left by a command that was killed")
			continue
		case v.Err != nil:
			c.findings = append(c.findings, finding.Finding{Object: "volume " + v.Name, Fact: v.Err.Error(), Advice: e.adviceOnVolume(v)})
		case v.Left:
			garbage("volume "+v.Name, fillKilled)
		}
		c.count++
	}
	return c, nil
}

func (e *Engine) adviceOnVolume(v volumes.State) string {
	if errors.Is(v.Err, volumes.ErrDataLost) {
		return "nook volume rm " + v.Name
	}
	return "what was written to it lies in " + e.volumes.Data(v.Name) + "; once that is saved, remove " + e.volumes.Dir(v.Name)
}

// repairVolumes sweeps and tidies: no volume is ever removed.
func (e *Engine) repairVolumes(ctx context.Context, c *checkedVolumes) error {
	found := false
	for i := range c.findings {
		found = found || c.findings[i].Garbage
	}
	if !found {
		return nil
	}
	if err := e.stage(ctx, request{SweepVolumes: true}, nil); err != nil {
		return fmt.Errorf("repair volumes: %w", err)
	}
	for i := range c.findings {
		f := &c.findings[i]
		if !f.Garbage {
			continue
		}
		f.Mended, f.Advice = "removed", ""
		if f.Fact == fillKilled {
			f.Mended = "finished"
		}
	}
	return nil
}

// checkMounts tells which of a container's volumes are lost, as when somebody
// removed their directories.
func (e *Engine) checkMounts(c *checkedContainers, object string, ct containers.Container, cfg *containers.Config, live bool) {
	for _, m := range cfg.Mounts {
		if m.Type != "volume" || m.Name == "" {
			continue
		}
		if _, err := e.volumes.Get(m.Name); !errors.Is(err, volumes.ErrNotFound) {
			continue
		}
		if !live {
			// Who removes a container holds it, and removes its volumes first.
			lock, err := ct.TryLock()
			lock.Release()
			if err != nil {
				continue
			}
		}
		if _, err := ct.Config(); err != nil {
			return // it went meanwhile
		}
		c.add(object, "its volume "+m.Name+" is lost", "nook rm "+cfg.Name+", or an empty one: nook volume create "+m.Name)
	}
}
