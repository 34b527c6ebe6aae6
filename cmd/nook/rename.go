package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func renameVerb() verb {
	return verb{
		name:    "rename",
		long:    []string{"container rename"},
		about:   "Rename a container",
		usage:   "CONTAINER NEW_NAME",
		min:     2,
		max:     2,
		options: func() []option { return nil },
		run:     (*shell).rename,
	}
}

func (s *shell) rename(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return nook.Rename(ctx, c.Args().Get(0), c.Args().Get(1))
	})
}
