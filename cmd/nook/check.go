package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func checkVerb() verb {
	return verb{
		name:    "system check",
		long:    []string{"system check"},
		about:   "Prove that images, layers and containers are whole",
		usage:   "[OPTIONS]",
		options: checkOptions,
		examples: []string{
			"nook system check             every layer is unpacked again and compared; exit code 0: whole, 1: something is damaged",
			"nook system check --repair    fetch and unpack again what is broken, remove garbage",
		},
		run: (*shell).check,
	}
}

func checkOptions() []option {
	return []option{
		{name: "format", value: "string", usage: "Format output: 'json', a line for each finding"},
		{name: "quick", short: "q", usage: "Read no layers: look at references and sizes alone"},
		{name: "repair", short: "r", usage: "Fetch and unpack damaged layers again, and remove garbage and broken references"},
	}
}

// exitDamaged is the exit code for a data root that is damaged, also when it was
// mended. Garbage alone is none: it only takes room.
const exitDamaged = 1

func (s *shell) check(c *cli.Context) error {
	asJSON := c.String("format") == "json"
	if !asJSON && c.String("format") != "" {
		return hint.Errorf("json is known", "invalid value %q for --format", c.String("format"))
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		done, err := nook.Check(ctx, engine.CheckOptions{Repair: c.Bool("repair"), Quick: c.Bool("quick")})
		if done != nil {
			if writeErr := s.writeChecked(done, asJSON); err == nil {
				err = writeErr
			}
		}
		if err == nil && done.Damaged() {
			err = exit(exitDamaged)
		}
		return err
	})
}

func (s *shell) writeChecked(done *engine.Checked, asJSON bool) error {
	garbage, damage := 0, 0
	for _, f := range done.Findings {
		if f.Garbage {
			garbage++
		} else {
			damage++
		}
		if asJSON {
			if err := writeJSON(s.stdout, f, ""); err != nil {
				return err
			}
			continue
		}
		line := f.Object + ": " + f.Fact
		if f.Mended != "" {
			line += "; " + f.Mended
		}
		fmt.Fprintln(s.stdout, oneLine(line))
		if f.Advice != "" {
			fmt.Fprintln(s.stdout, "  hint: "+oneLine(f.Advice))
		}
	}
	if asJSON {
		return nil
	}
	_, err := fmt.Fprintf(s.stdout, "%d images, %d blobs, %d layers, %d containers, %d volumes: %d damaged, %d left over\n",
		done.Images, done.Blobs, done.Layers, done.Containers, done.Volumes, damage, garbage)
	return err
}
