package engine

import (
	"context"
	"io"
)

// Save writes images to w as an archive that docker, podman, skopeo and umoci
// read: see images.Store.Save.
func (e *Engine) Save(ctx context.Context, w io.Writer, names []string) error {
	for _, name := range names {
		if err := e.ensureHello(ctx, name); err != nil {
			return err
		}
	}
	saved, err := e.images.Save(ctx, w, names)
	for _, img := range saved {
		e.imageEvent("save", img.ID, img.ID)
	}
	return err
}
