package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func rmVerb() verb {
	return verb{
		name:    "rm",
		long:    []string{"container rm", "container remove"},
		about:   "Remove one or more containers",
		usage:   "CONTAINER [CONTAINER...]",
		min:     1,
		max:     -1,
		options: func() []option { return nil },
		run:     (*shell).rm,
	}
}

func (s *shell) rm(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.each(ctx, c.Args().Slice(), func(name string) error {
			if err := nook.RemoveContainer(ctx, name); err != nil {
				return err
			}
			fmt.Fprintln(s.stdout, name)
			return nil
		})
	})
}
