package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/images"
)

func historyVerb() verb {
	return verb{
		name:    "history",
		long:    []string{"image history"},
		about:   "Show the history of an image",
		usage:   "[OPTIONS] IMAGE",
		min:     1,
		max:     1,
		options: historyOptions,
		run:     (*shell).history,
	}
}

func historyOptions() []option {
	return []option{
		{name: "format", value: "string", usage: formatUsage},
		{name: "human", short: "H", usage: "Print sizes and dates in human readable format (default true)"},
		{name: "no-trunc", usage: "Don't truncate output"},
		{name: "quiet", short: "q", usage: "Only show image IDs"},
	}
}

// historyRow is a line of docker history.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

const historyTable = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"

func historyHeaders() map[string]string {
	return map[string]string{
		"Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY",
		"CreatedSince": "CREATED", "ID": "IMAGE", "Size": "SIZE",
	}
}

func (s *shell) history(c *cli.Context) error {
	f := readFormat(c.String("format"), historyTable)
	if c.Bool("quiet") && (f.table || c.String("format") == "") {
		f = format{template: "{{.ID}}"}
	}
	human := !c.IsSet("human") || c.Bool("human")
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		steps, err := nook.History(ctx, c.Args().First())
		if err != nil {
			return err
		}
		rows := make([]historyRow, len(steps))
		for i, step := range steps {
			rows[i] = newHistoryRow(step, c.Bool("no-trunc"), human, s.now())
		}
		return writeRows(s.stdout, f, historyHeaders(), rows)
	})
}

func newHistoryRow(step images.Step, whole, human bool, now time.Time) historyRow {
	row := historyRow{
		Comment: oneLine(step.Comment), CreatedBy: strings.ReplaceAll(step.CreatedBy, "\t", " "),
		CreatedAt: "N/A", CreatedSince: "N/A", ID: "<missing>", Size: strconv.FormatInt(step.Size, 10),
	}
	if step.ID != "" {
		row.ID = shortID(step.ID, whole)
	}
	row.CreatedBy = oneLine(row.CreatedBy)
	if !whole {
		row.CreatedBy = ellipsis(row.CreatedBy, 45)
	}
	// Builds that anyone can repeat set the time to 0.
	if step.Created.Unix() > 0 {
		row.CreatedAt = step.Created.In(now.Location()).Format(time.RFC3339)
		row.CreatedSince = row.CreatedAt
		if human {
			row.CreatedSince = units.HumanDuration(now.Sub(step.Created)) + " ago"
		}
	}
	if human {
		row.Size = units.HumanSizeWithPrecision(float64(step.Size), 3)
	}
	return row
}

func manifestInspectVerb() verb {
	return verb{
		name:  "manifest inspect",
		long:  []string{"manifest inspect"},
		about: "Display an image manifest",
		usage: "IMAGE",
		min:   1,
		max:   1,
		examples: []string{
			"nook manifest inspect debian    an image that isn't here, or of several platforms: the registry's",
		},
		run: (*shell).manifestInspect,
		options: func() []option {
			return nil
		},
	}
}

func (s *shell) manifestInspect(c *cli.Context) error {
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		raw, err := nook.Manifest(ctx, c.Args().First())
		if err != nil {
			return err
		}
		var shown bytes.Buffer
		if err := json.Indent(&shown, raw, "", "    "); err != nil {
			return err
		}
		shown.WriteByte('\n')
		_, err = s.stdout.Write(shown.Bytes())
		return err
	})
}
