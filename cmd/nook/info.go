package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/engine"
)

func infoVerb() verb {
	return verb{
		name:    "info",
		long:    []string{"system info"},
		about:   "Display system-wide information",
		usage:   "[OPTIONS]",
		common:  true,
		options: infoOptions,
		run:     (*shell).info,
	}
}

func infoOptions() []option {
	return []option{
		{name: "format", short: "f", value: "string", usage: formatUsage},
	}
}

func (s *shell) info(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		info, err := nook.Info(ctx)
		if err != nil {
			return err
		}
		switch flag := c.String("format"); flag {
		case "", "table":
			writeSections(s.stdout, info.Sections())
			return nil
		default:
			return writeRows(s.stdout, readFormat(flag, ""), nil, []*engine.Info{info})
		}
	})
}

// writeSections prints titles and, indented under them, names and values; a
// value of several lines stays in its column.
func writeSections(w io.Writer, sections []engine.Section) {
	width := 0
	for _, section := range sections {
		for _, row := range section.Rows {
			width = max(width, len(row[0]))
		}
	}
	for i, section := range sections {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s\n", section.Title)
		for _, row := range section.Rows {
			name := row[0] + ":"
			for _, line := range strings.Split(row[1], "\n") {
				fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-*s %s", width+1, name, line), " "))
				name = ""
			}
		}
	}
}
