package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"
)

func saveVerb() verb {
	return verb{
		name:    "save",
		long:    []string{"image save"},
		about:   "Save one or more images to a tar archive (streamed to STDOUT by default)",
		usage:   "[OPTIONS] IMAGE [IMAGE...]",
		min:     1,
		max:     -1,
		options: archiveOptions,
		examples: []string{
			"nook save -o app.tar app:1 app:2    layers of both are in it once",
			"nook save app | docker load         every tag of app",
		},
		run: (*shell).save,
	}
}

func (s *shell) save(c *cli.Context) error {
	output, err := s.archiveOutput(c)
	if err != nil {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.toFile(ctx, output, func(w io.Writer) error { return nook.Save(ctx, w, c.Args().Slice()) })
	})
}
