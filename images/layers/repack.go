package layers

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Layer makes a layer of a container's changes in dir, whose fs is there and
// empty: where no overlay keeps them apart from the image's files (View.Full).
// It gives what Place wants to know of it.
func (v View) Layer(ctx context.Context, dir string) (Meta, error) {
	r, w := io.Pipe()
	var all sync.WaitGroup
	all.Go(func() { _ = w.CloseWithError(v.Pack(ctx, w)) })
	meta, err := extractTo(ctx, r, dir, v.Lowers, v.IDs)
	_ = r.CloseWithError(err)
	all.Wait()
	if err != nil {
		return meta, fmt.Errorf("make the layer: %w", err)
	}
	return meta, nil
}

func extractTo(ctx context.Context, stream io.Reader, dir string, lowers []string, ids IDs) (Meta, error) {
	var meta Meta
	l, err := Extract(ctx, stream, filepath.Join(dir, "fs"), ids)
	if err != nil {
		return meta, err
	}
	l.belowOwners = ownersBelow(lowers)
	if err := l.Finish(ctx, lowers); err != nil {
		return meta, err
	}
	l.describe(&meta)
	_ = os.Remove(filepath.Join(dir, ownersFile))
	return meta, l.writeOwners(filepath.Join(dir, ownersFile))
}
