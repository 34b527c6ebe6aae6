package main

import (
	"context"
	"io"
	"strconv"

	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

// keeper is the part of *engine.Engine that keeps the store of images.
type keeper interface {
	FindImages(context.Context, images.Filter) ([]images.Image, error)
	Save(ctx context.Context, w io.Writer, names []string) error
	History(ctx context.Context, name string) ([]images.Step, error)
	Manifest(ctx context.Context, name string) ([]byte, error)
	Search(ctx context.Context, term string) ([]string, error)
	PruneImages(context.Context, engine.ImagePruneOptions) (engine.PrunedImages, error)
	DiskUsage(context.Context) (*engine.DiskUsage, error)
	Check(context.Context, engine.CheckOptions) (*engine.Checked, error)
	PruneSystem(context.Context, engine.SystemPruneOptions) (engine.PrunedSystem, error)
}

// readImageFilter reads the --filter of images, and of image prune. known are
// the keys that the verb takes.
func (s *shell) readImageFilter(flags []string, known string, takes func(key string) bool) (images.Filter, error) {
	var f images.Filter
	filters, err := engine.ParseFilters(flags)
	if err != nil {
		return f, err
	}
	for key, values := range filters {
		if !takes(key) {
			return f, hint.Errorf(known+" are known", "filter %q: %w", key, engine.ErrFilter)
		}
		if len(values) > 1 && (key == "dangling" || key == "until") {
			return f, hint.Errorf("give one", "filter %s: there are %d", key, len(values))
		}
		switch key {
		case "dangling":
			dangling, err := strconv.ParseBool(values[0])
			if err != nil {
				return f, hint.Errorf("true or false", "filter dangling=%s: %w", values[0], engine.ErrFilter)
			}
			f.Dangling = &dangling
		case "reference":
			f.References = values
		case "before":
			f.Before = values
		case "since":
			f.Since = values
		case "label":
			f.Labels = values
		case "label!":
			f.NotLabels = values
		case "until":
			if f.Until, err = readTime("filter until", values[0], s.now()); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}
