package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func loadVerb() verb {
	return verb{
		name:    "load",
		long:    []string{"image load"},
		about:   "Load an image from a tar archive or STDIN",
		usage:   "[OPTIONS]",
		options: loadOptions,
		examples: []string{
			"nook load -i app.tar.gz     an archive of docker's or OCI's",
			"nook load -i layout/        an OCI image layout",
			"docker save app | nook load",
		},
		run: (*shell).load,
	}
}

func loadOptions() []option {
	return []option{
		{name: "input", short: "i", value: "string", usage: "Read from tar archive file or OCI layout directory, instead of STDIN"},
		{name: "platform", value: "string", usage: `Load only the given platform variant, as "os[/arch[/variant]]" (e.g., "linux/amd64")`},
		{name: "quiet", short: "q", usage: "Suppress the load output"},
	}
}

func (s *shell) load(c *cli.Context) error {
	o := engine.LoadOptions{Path: c.String("input"), Platform: c.String("platform")}
	if o.Path == "" {
		in, err := s.archiveFromStdin("nook load -i FILE")
		if err != nil {
			return err
		}
		o.Input = in
	}
	if c.Bool("quiet") {
		s.bars = nil
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		loaded, err := nook.Load(ctx, o)
		// Those that were loaded before an error are there, and said to be.
		if !c.Bool("quiet") {
			for _, image := range loaded {
				for _, line := range loadedLines(image) {
					fmt.Fprintln(s.stdout, line)
				}
			}
		}
		return err
	})
}

// archiveFromStdin refuses a terminal: nobody types an archive.
func (s *shell) archiveFromStdin(instead string) (io.Reader, error) {
	if asTerminal(s.stdin) != nil {
		return nil, hint.Wrap(errors.New("requested to read an archive from standard input, which is a terminal"),
			"use "+instead+", or redirect an archive to standard input")
	}
	return s.stdin, nil
}
