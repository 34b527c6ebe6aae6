package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func systemPruneVerb() verb {
	return verb{
		name:    "system prune",
		long:    []string{"system prune"},
		about:   "Remove unused data",
		usage:   "[OPTIONS]",
		options: systemPruneOptions,
		run:     (*shell).systemPrune,
	}
}

func systemPruneOptions() []option {
	return []option{
		{name: "all", short: "a", usage: "Remove all unused images not just dangling ones"},
		{name: "filter", value: "list", usage: "Provide filter values: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]"},
		{name: "force", short: "f", usage: "Do not prompt for confirmation"},
		{name: "volumes", usage: "Prune anonymous volumes"},
	}
}

func (s *shell) systemPrune(c *cli.Context) error {
	var o engine.SystemPruneOptions
	var err error
	filters := c.StringSlice("filter")
	if o.Containers, err = s.readPruneOptions(filters); err != nil {
		return err
	}
	if o.Images, err = s.readImagePrune(c); err != nil {
		return err
	}
	if c.Bool("volumes") {
		if !o.Containers.Until.IsZero() {
			return hint.Errorf("leave one out: nobody knows when a volume was last used", `the "until" filter is not supported with "--volumes"`)
		}
		o.Volumes = &engine.PruneVolumesOptions{Labels: o.Containers.Labels, NotLabels: o.Containers.NotLabels}
	}
	if sure, err := s.sure(c, "system prune", systemPruneWarning(o.Images.All, o.Volumes != nil, filters)); !sure {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		done, err := nook.PruneSystem(ctx, o)
		if len(done.Containers) > 0 {
			fmt.Fprintf(s.stdout, "Deleted Containers:\n%s\n\n", strings.Join(done.Containers, "\n"))
		}
		if len(done.Volumes) > 0 {
			fmt.Fprintf(s.stdout, "Deleted Volumes:\n%s\n\n", strings.Join(done.Volumes, "\n"))
		}
		writePrunedImages(s.stdout, done.Images)
		if len(done.Steps) > 0 {
			fmt.Fprintf(s.stdout, "Deleted build cache objects:\n%s\n\n", strings.Join(done.Steps, "\n"))
		}
		if err == nil || done.Bytes > 0 {
			fmt.Fprintf(s.stdout, "Total reclaimed space: %s\n", units.HumanSize(float64(done.Bytes)))
		}
		return err
	})
}

func systemPruneWarning(all, volumes bool, filters []string) string {
	lines := []string{"WARNING! This will remove:", "  - all stopped containers"}
	if volumes {
		lines = append(lines, "  - all anonymous volumes not used by at least one container")
	}
	if all {
		lines = append(lines, "  - all images without at least one container associated to them")
	} else {
		lines = append(lines, "  - all dangling images")
	}
	if all {
		lines = append(lines, "  - all build cache")
	} else {
		lines = append(lines, "  - dangling build cache")
	}
	lines = append(lines, "  - what commands that were killed left behind")
	if len(filters) > 0 {
		lines = append(lines, "", "  Items to be pruned will be filtered with:")
		for _, f := range slices.Sorted(slices.Values(filters)) {
			lines = append(lines, "  - "+f)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
