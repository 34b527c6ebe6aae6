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
	all.Go(func() {
		_, err := v.Pack(ctx, w)
		_ = w.CloseWithError(err)
	})
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

// Receive unpacks a blob, packed or not, to dir, whose fs is there and empty, as
// a layer on top of lowers: what Place wants to know of it. The content has to
// have the diff id. It runs in a stage.
func (s *Store) Receive(ctx context.Context, blob io.Reader, diffID, dir string, lowers []string) (Meta, error) {
	stream, _, err := decompressUpTo(blob, true, &fuse{floor: s.bomb})
	if err != nil {
		return Meta{}, err
	}
	defer func() { _ = stream.Close() }()
	meta, err := extractTo(ctx, stream, dir, lowers, s.ids)
	if err != nil {
		return meta, err
	}
	if got := stream.diffID(); got != diffID {
		return meta, fmt.Errorf("the layer's content has the digest %s and should have %s", got, diffID)
	}
	meta.DiffID = diffID
	return meta, nil
}
