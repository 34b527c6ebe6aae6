package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func updateVerb() verb {
	return verb{
		name:     "update",
		long:     []string{"container update"},
		about:    "Update configuration of one or more containers",
		usage:    "[OPTIONS] CONTAINER [CONTAINER...]",
		min:      1,
		max:      -1,
		options:  updateOptions,
		flagHint: "--restart is what can be changed; limits come later",
		run:      (*shell).update,
	}
}

func updateOptions() []option {
	return []option{
		{name: "restart", value: "string", usage: "Restart policy to apply when a container exits: no, always, unless-stopped or on-failure[:TIMES]"},
	}
}

func (s *shell) update(c *cli.Context) error {
	if !c.IsSet("restart") {
		return hint.Errorf("name it: --restart POLICY", "you must provide one or more flags")
	}
	policy, err := engine.ParseRestartPolicy(c.String("restart"))
	if err != nil {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.each(ctx, c.Args().Slice(), func(name string) error {
			return echo(s, name, nook.Update(ctx, name, engine.UpdateOptions{Restart: &policy}))
		})
	})
}
