package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func containerPruneVerb() verb {
	return verb{
		name:    "container prune",
		long:    []string{"container prune"},
		about:   "Remove all stopped containers",
		usage:   "[OPTIONS]",
		options: containerPruneOptions,
		run:     (*shell).containerPrune,
	}
}

func containerPruneOptions() []option {
	return []option{
		{name: "filter", value: "list", usage: "Provide filter values: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]"},
		{name: "force", short: "f", usage: "Do not prompt for confirmation"},
	}
}

func (s *shell) containerPrune(c *cli.Context) error {
	o, err := s.readPruneOptions(c.StringSlice("filter"))
	if err != nil {
		return err
	}
	if sure, err := s.sure(c, "container prune", "WARNING! This will remove all stopped containers."); !sure {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		done, err := nook.Prune(ctx, o)
		if len(done.IDs) > 0 {
			fmt.Fprintf(s.stdout, "Deleted Containers:\n%s\n\n", strings.Join(done.IDs, "\n"))
		}
		if err == nil || len(done.IDs) > 0 {
			fmt.Fprintf(s.stdout, "Total reclaimed space: %s\n", units.HumanSize(float64(done.Bytes)))
		}
		return err
	})
}

// readPruneOptions reads the filters: docker knows these for containers.
func (s *shell) readPruneOptions(flags []string) (engine.PruneOptions, error) {
	var o engine.PruneOptions
	filters, err := engine.ParseFilters(flags)
	if err != nil {
		return o, err
	}
	for key, values := range filters {
		switch key {
		case "label":
			o.Labels = values
		case "label!":
			o.NotLabels = values
		case "until":
			if len(values) > 1 {
				return o, hint.Errorf("give one time", "filter until: there are %d", len(values))
			}
			if o.Until, err = readTime("filter until", values[0], s.now()); err != nil {
				return o, err
			}
		default:
			return o, hint.Errorf("label, label! and until are known", "filter %q: %w", key, engine.ErrFilter)
		}
	}
	return o, nil
}
