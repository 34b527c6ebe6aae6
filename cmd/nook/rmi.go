package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/urfave/cli/v2"

	"nook/internal/hint"
)

func rmiVerb() verb {
	return verb{
		name:    "rmi",
		long:    []string{"image rm", "image remove"},
		about:   "Remove one or more images",
		usage:   "[OPTIONS] IMAGE [IMAGE...]",
		min:     1,
		max:     -1,
		options: rmiOptions,
		run:     (*shell).rmi,
	}
}

func rmiOptions() []option {
	return []option{
		{name: "force", short: "f", usage: "Force removal of the image"},
	}
}

func (s *shell) rmi(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.each(ctx, c.Args().Slice(), func(name string) error {
			lines, err := nook.RemoveImage(ctx, name, c.Bool("force"))
			for _, line := range lines {
				fmt.Fprintln(s.stdout, line)
			}
			return err
		})
	})
}

// each does one thing to every name: what doesn't work with one is said, and
// the others are done all the same. The exit code is that of the first error.
func (s *shell) each(ctx context.Context, names []string, do func(name string) error) error {
	return s.all(ctx, len(names), func(next func(error) bool) {
		for _, name := range names {
			if !next(do(name)) {
				return
			}
		}
	})
}

// all is each for what does n things by itself.
func (s *shell) all(ctx context.Context, n int, errs iter.Seq[error]) error {
	var first error
	for err := range errs {
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil || n == 1:
			return err
		}
		s.complain(err)
		first = firstOf(first, err)
	}
	if first != nil {
		return exit(hint.Code(first))
	}
	return nil
}
