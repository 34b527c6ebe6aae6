package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

func imagePruneVerb() verb {
	return verb{
		name:    "image prune",
		long:    []string{"image prune"},
		about:   "Remove unused images",
		usage:   "[OPTIONS]",
		options: imagePruneOptions,
		run:     (*shell).imagePrune,
	}
}

func imagePruneOptions() []option {
	return []option{
		{name: "all", short: "a", usage: "Remove all unused images, not just dangling ones"},
		{name: "filter", value: "list", usage: "Provide filter values: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], dangling=BOOL"},
		{name: "force", short: "f", usage: "Do not prompt for confirmation"},
	}
}

func (s *shell) imagePrune(c *cli.Context) error {
	o, err := s.readImagePrune(c)
	if err != nil {
		return err
	}
	warning := "WARNING! This will remove all dangling images."
	if o.All {
		warning = "WARNING! This will remove all images without at least one container associated to them."
	}
	if sure, err := s.sure(c, "image prune", warning); !sure {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		done, err := nook.PruneImages(ctx, o)
		if err == nil || len(done.Deleted)+len(done.Untagged) > 0 {
			writePrunedImages(s.stdout, done)
			fmt.Fprintf(s.stdout, "Total reclaimed space: %s\n", units.HumanSize(float64(done.Bytes)))
		}
		return err
	})
}

// readImagePrune reads --all and the filters; dangling=false is --all, as
// docker has it.
func (s *shell) readImagePrune(c *cli.Context) (engine.ImagePruneOptions, error) {
	o := engine.ImagePruneOptions{All: c.Bool("all")}
	var err error
	o.Filter, err = s.readImageFilter(c.StringSlice("filter"), "dangling, label, label! and until", func(key string) bool {
		return slices.Contains([]string{"dangling", "label", "label!", "until"}, key)
	})
	if dangling := o.Filter.Dangling; dangling != nil {
		o.All, o.Filter.Dangling = !*dangling, nil
	}
	return o, err
}

func writePrunedImages(w io.Writer, done engine.PrunedImages) {
	if len(done.Deleted)+len(done.Untagged) == 0 {
		return
	}
	fmt.Fprintln(w, "Deleted Images:")
	for _, name := range done.Untagged {
		fmt.Fprintln(w, "untagged: "+name)
	}
	for _, id := range done.Deleted {
		fmt.Fprintln(w, "deleted: "+id)
	}
	fmt.Fprintln(w)
}

// sure asks before something is removed, but for --force, as docker does: only
// y goes on, and another answer is the end without a word. No answer at all,
// where nobody was asked, is an error.
func (s *shell) sure(c *cli.Context, verb, warning string) (bool, error) {
	if c.Bool("force") {
		return true, nil
	}
	fmt.Fprintf(s.stdout, "%s\nAre you sure you want to continue? [y/N] ", warning)
	answer, err := bufio.NewReader(s.stdin).ReadString('\n')
	switch {
	case errors.Is(err, io.EOF) && answer == "":
		return false, hint.Errorf("answer y, or use --force", "%s: nothing was removed: not confirmed", verb)
	case err != nil && !errors.Is(err, io.EOF):
		return false, fmt.Errorf("read the answer: %w", err)
	}
	return strings.EqualFold(strings.TrimSpace(answer), "y"), nil
}
