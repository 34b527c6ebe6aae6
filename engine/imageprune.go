package engine

import (
	"context"

	"nook/images"
)

// FindImages lists the images of the store that the filter chooses.
func (e *Engine) FindImages(ctx context.Context, f images.Filter) ([]images.Image, error) {
	return e.images.Select(ctx, f)
}
