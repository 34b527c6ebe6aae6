package main

import (
	"context"
	"io"
	"os"

	"github.com/urfave/cli/v2"
)

func volumeExportVerb() verb {
	return verb{
		name:    "volume export",
		long:    []string{"volume export"},
		about:   "Export a volume's files as a tar archive",
		usage:   "[OPTIONS] VOLUME",
		min:     1,
		max:     1,
		options: archiveOptions,
		examples: []string{
			"nook volume export -o data.tar data",
			"nook volume export data | gzip >data.tar.gz",
		},
		run: (*shell).volumeExport,
	}
}

func (s *shell) volumeExport(c *cli.Context) error {
	output, err := s.archiveOutput(c)
	if err != nil {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.toFile(ctx, output, func(w io.Writer) error { return nook.ExportVolume(ctx, c.Args().First(), w) })
	})
}

func volumeImportVerb() verb {
	return verb{
		name:    "volume import",
		long:    []string{"volume import"},
		about:   "Fill a new or empty volume from a tar archive",
		usage:   "VOLUME [FILE|-]",
		min:     1,
		max:     2,
		options: func() []option { return nil },
		examples: []string{
			"nook volume import data data.tar.gz",
			"nook volume export data | nook volume import copy",
		},
		run: (*shell).volumeImport,
	}
}

func (s *shell) volumeImport(c *cli.Context) error {
	var in io.Reader
	if file := c.Args().Get(1); file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	} else {
		var err error
		if in, err = s.archiveFromStdin("nook volume import VOLUME FILE"); err != nil {
			return err
		}
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		name := c.Args().First()
		return echo(s, name, nook.ImportVolume(ctx, name, in))
	})
}
