package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"nook/engine"
)

// watcher is the part of *engine.Engine that tells what containers do.
type watcher interface {
	Top(ctx context.Context, nameOrID string, psArgs ...string) (engine.TopResult, error)
	Stats(context.Context, engine.StatsOptions, func([]engine.Stat) error) error
}

func topVerb() verb {
	return verb{
		name:     "top",
		long:     []string{"container top"},
		about:    "Display the running processes of a container",
		usage:    "CONTAINER [ps OPTIONS]",
		min:      1,
		max:      -1,
		verbatim: true,
		options:  func() []option { return nil },
		run:      (*shell).top,
		examples: []string{
			"nook top web",
			"nook top web aux",
			"nook top web -o pid,user,rss,args",
		},
	}
}

func (s *shell) top(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		args := c.Args().Slice()
		table, err := nook.Top(ctx, args[0], args[1:]...)
		if err != nil {
			return err
		}
		columns := tabwriter.NewWriter(s.stdout, 20, 1, 3, ' ', 0)
		for _, row := range append([][]string{table.Titles}, table.Processes...) {
			fmt.Fprintln(columns, strings.Join(row, "\t"))
		}
		return columns.Flush()
	})
}
