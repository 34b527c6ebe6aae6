package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func tagVerb() verb {
	return verb{
		name:    "tag",
		long:    []string{"image tag"},
		about:   "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		usage:   "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		min:     2,
		max:     2,
		options: func() []option { return nil },
		run:     (*shell).tag,
	}
}

func (s *shell) tag(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return nook.Tag(ctx, c.Args().Get(0), c.Args().Get(1))
	})
}
