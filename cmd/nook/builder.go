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

// cachePruner is the part of *engine.Engine that builder prune calls.
type cachePruner interface {
	PruneBuilds(ctx context.Context, o engine.BuildPruneOptions) (engine.PrunedBuilds, error)
}

func builderPruneVerb() verb {
	return verb{
		name:    "builder prune",
		long:    []string{"builder prune"},
		about:   "Remove build cache",
		usage:   "[OPTIONS]",
		options: builderPruneOptions,
		run:     (*shell).builderPrune,
	}
}

func builderPruneOptions() []option {
	return []option{
		{name: "all", short: "a", usage: "Remove all unused build cache, not just dangling ones"},
		{name: "filter", value: "list", usage: "Provide filter values: until=TIME"},
		{name: "force", short: "f", usage: "Do not prompt for confirmation"},
		{name: "keep-storage", value: "bytes", usage: "Amount of disk space to keep for cache"},
	}
}

func (s *shell) builderPrune(c *cli.Context) error {
	o := engine.BuildPruneOptions{All: c.Bool("all")}
	for _, filter := range c.StringSlice("filter") {
		key, value, _ := strings.Cut(filter, "=")
		if key != "until" && key != "unused-for" {
			return hint.Errorf("until is the filter there is", "--filter %s is not known", filter)
		}
		t, err := readTime("filter "+key, value, s.now())
		if err != nil {
			return err
		}
		o.Until = t
	}
	if text := c.String("keep-storage"); text != "" {
		n, err := units.RAMInBytes(text)
		if err != nil {
			return hint.Errorf("write it like 512MB", "--keep-storage %s: not a size", text)
		}
		o.Keep = n
	}
	warning := "WARNING! This will remove all dangling build cache."
	if o.All {
		warning = "WARNING! This will remove all build cache."
	}
	if sure, err := s.sure(c, "builder prune", warning); !sure {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		done, err := nook.PruneBuilds(ctx, o)
		for _, id := range done.IDs {
			fmt.Fprintln(s.stdout, id)
		}
		if err == nil || len(done.IDs) > 0 {
			fmt.Fprintf(s.stdout, "Total:\t%s\n", units.HumanSize(float64(done.Bytes)))
		}
		return err
	})
}
