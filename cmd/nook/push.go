package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"nook/engine"
)

func pushVerb() verb {
	return verb{
		name:    "push",
		long:    []string{"image push"},
		about:   "Upload an image to a registry",
		usage:   "[OPTIONS] NAME[:TAG]",
		min:     1,
		max:     1,
		options: pushOptions,
		examples: []string{
			"nook tag app localhost:5000/app && nook push localhost:5000/app",
		},
		run: (*shell).push,
	}
}

func pushOptions() []option {
	return []option{
		{name: "all-tags", short: "a", usage: "Push all tags of an image to the repository"},
		{name: "quiet", short: "q", usage: "Suppress verbose output"},
	}
}

func (s *shell) push(c *cli.Context) error {
	quiet := c.Bool("quiet")
	o := engine.PushOptions{AllTags: c.Bool("all-tags")}
	if quiet {
		s.bars = nil
	} else {
		o.Begun = func(repository string) {
			fmt.Fprintf(s.stdout, "The push refers to repository [%s]\n", repository)
		}
		if s.bars == nil {
			o.Layer = layerLines(s.stdout)
		}
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		pushed, err := nook.Push(ctx, c.Args().First(), o)
		for _, one := range pushed {
			if quiet {
				fmt.Fprintln(s.stdout, one.Ref)
				continue
			}
			fmt.Fprintf(s.stdout, "%s: digest: %s size: %d\n", one.Ref.Tag, one.Digest, one.Size)
		}
		return err
	})
}
