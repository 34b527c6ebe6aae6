package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func diffVerb() verb {
	return verb{
		name:    "diff",
		long:    []string{"container diff"},
		about:   "Inspect changes to files or directories on a container's filesystem",
		usage:   "CONTAINER",
		min:     1,
		max:     1,
		options: func() []option { return nil },
		run:     (*shell).diff,
	}
}

func (s *shell) diff(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		changes, err := nook.Diff(ctx, c.Args().First())
		if err != nil {
			return err
		}
		for _, change := range changes {
			fmt.Fprintln(s.stdout, change.Kind, oneLine(change.Path))
		}
		return nil
	})
}
