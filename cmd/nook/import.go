package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"nook/engine"
)

func importVerb() verb {
	return verb{
		name:    "import",
		long:    []string{"image import"},
		about:   "Import the contents from a tarball to create a filesystem image",
		usage:   "[OPTIONS] FILE|- [REPOSITORY[:TAG]]",
		min:     1,
		max:     2,
		options: importOptions,
		examples: []string{
			"nook import rootfs.tar.gz debian:mine",
			`mmdebstrap bookworm | nook import -c 'CMD ["bash"]' - debian`,
		},
		run: (*shell).importRootfs,
	}
}

func importOptions() []option {
	return []option{
		{name: "change", short: "c", value: "list", usage: "Apply Dockerfile instruction to the created image"},
		{name: "message", short: "m", value: "string", usage: "Set commit message for imported image"},
	}
}

func (s *shell) importRootfs(c *cli.Context) error {
	o := engine.ImportOptions{
		Path:    c.Args().Get(0),
		Ref:     c.Args().Get(1),
		Message: c.String("message"),
		Changes: c.StringSlice("change"),
	}
	if o.Path == "-" {
		in, err := s.archiveFromStdin("nook import FILE")
		if err != nil {
			return err
		}
		o.Path, o.Input = "", in
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		image, err := nook.Import(ctx, o)
		if err != nil {
			return err
		}
		fmt.Fprintln(s.stdout, image.ID)
		return nil
	})
}
