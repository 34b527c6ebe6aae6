package main

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"nook/internal/hint"
)

func saveVerb() verb {
	return verb{
		name:    "save",
		long:    []string{"image save"},
		about:   "Save one or more images to a tar archive (streamed to STDOUT by default)",
		usage:   "[OPTIONS] IMAGE [IMAGE...]",
		min:     1,
		max:     -1,
		options: saveOptions,
		examples: []string{
			"nook save -o app.tar app:1 app:2    layers of both are in it once",
			"nook save app | docker load         every tag of app",
		},
		run: (*shell).save,
	}
}

func saveOptions() []option {
	return []option{{name: "output", short: "o", value: "string", usage: "Write to a file, instead of STDOUT"}}
}

func (s *shell) save(c *cli.Context) error {
	output := c.String("output")
	if output == "" && asTerminal(s.stdout) != nil {
		return hint.Errorf("use -o FILE, or redirect standard output", "an archive is not written to a terminal")
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.toFile(output, func(w io.Writer) error { return nook.Save(ctx, w, c.Args().Slice()) })
	})
}
