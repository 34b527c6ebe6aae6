package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"nook/build"
	"nook/internal/hint"
)

// Build makes an image of a Dockerfile: see package build. Nothing of a build
// that ends, or is killed, goes on; what its steps made until then is in the
// cache.
func (e *Engine) Build(ctx context.Context, o build.Options) (result build.Result, err error) {
	w, err := e.newWorker(ctx)
	if err != nil {
		return result, err
	}
	defer w.close()
	w.again = o.NoCache
	if o.Now != nil {
		w.now = o.Now
	}
	temp, err := e.stageStep()
	if err != nil {
		return result, err
	}
	defer temp.close()
	o.Temp = filepath.Join(temp.dir, "temp")
	if err := os.Mkdir(o.Temp, 0o700); err != nil {
		return result, e.noRoom(fmt.Errorf("build: %w", err))
	}
	w.temp = temp.dir
	result, err = build.Build(ctx, w, o)
	if isFull(err) && hint.Of(err) == "" {
		err = e.noRoom(err)
	}
	if err == nil && o.Loads() {
		for _, name := range o.Names {
			e.imageEvent("tag", result.Image.ID, name)
		}
	}
	return result, err
}

var _ build.Worker = (*worker)(nil)
