package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"nook/engine"
)

func commitVerb() verb {
	return verb{
		name:    "commit",
		long:    []string{"container commit"},
		about:   "Create a new image from a container's changes",
		usage:   "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		min:     1,
		max:     2,
		options: commitOptions,
		examples: []string{
			"nook commit web web:edited",
			`nook commit -c 'CMD ["nginx","-g","daemon off;"]' -m "pages" web web:2`,
		},
		run: (*shell).commit,
	}
}

func commitOptions() []option {
	return []option{
		{name: "author", short: "a", value: "string", usage: `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`},
		{name: "change", short: "c", value: "list", usage: "Apply Dockerfile instruction to the created image"},
		{name: "message", short: "m", value: "string", usage: "Commit message"},
		{name: "no-pause", usage: "Disable pausing container during commit"},
		{name: "pause", short: "p", usage: "Pause container during commit (the default; --pause=false disables it)"},
	}
}

func (s *shell) commit(c *cli.Context) error {
	o := engine.CommitOptions{
		Ref: c.Args().Get(1), Author: c.String("author"), Message: c.String("message"),
		Changes: c.StringSlice("change"),
		NoPause: c.Bool("no-pause") || c.IsSet("pause") && !c.Bool("pause"),
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		id, err := nook.Commit(ctx, c.Args().First(), o)
		if err != nil {
			return err
		}
		fmt.Fprintln(s.stdout, id)
		return nil
	})
}
