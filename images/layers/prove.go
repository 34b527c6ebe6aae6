package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An image pairs blobs with diff ids, and the store has layers by their diff
// ids. So a blob that isn't unpacked, because the layer is there, may be
// anything, until somebody looks: what is pushed or saved later is the blob.

// unproven says whether a source has to be compared with its diff id, where the
// layer was unpacked from the given blob.
func (s *Source) unproven(blob string) bool {
	return s.Blob != "" && !s.Known && s.Blob != blob
}

func (s *Store) unproven(c Chain, sources []Source) bool {
	for i := range sources {
		if sources[i].Blob == "" || sources[i].Known {
			continue
		}
		meta, err := s.readMeta(c.Keys[i])
		if err != nil || sources[i].unproven(meta.Blob) {
			return true
		}
	}
	return false
}

// Unpacked says whether Unpack has nothing to do.
func (s *Store) Unpacked(sources []Source) bool {
	ids := make([]string, len(sources))
	for i := range sources {
		ids[i] = sources[i].DiffID
	}
	c, err := s.Ready(ids)
	return err == nil && !s.unproven(c, sources)
}

// prove reads a blob for its digest alone.
func (u *unpacking) prove(ctx context.Context, i int, _ *unpacked) error {
	return u.readBlob(ctx, i, func(stream io.Reader) error {
		_, err := io.Copy(io.Discard, stream)
		return err
	})
}

// Wrong is what Prove found of a layer.
type Wrong struct {
	Layer int // of the sources
	// Key is that of the unpacked layer that isn't what its blob makes; "": it
	// is the blob that isn't what the image says.
	Key  string
	Fact string
}

// Prove holds the layers of an image, bottom to top, to their blobs: each is
// unpacked again beside the one of the store, and compared with it; of one that
// isn't unpacked the blob's digest is. Known sources are passed over. It runs in
// a stage and takes the room of the largest layer.
//
// An error is one of this machine.
func (s *Store) Prove(ctx context.Context, sources []Source, report Report) ([]Wrong, error) {
	if err := s.makeDirs(); err != nil {
		return nil, err
	}
	if report == nil {
		report = func(string, int64) {}
	}
	u := &unpacking{store: s, sources: sources, report: report, proving: true}
	ids := make([]string, len(sources))
	for i := range sources {
		ids[i] = sources[i].DiffID
	}
	if err := u.find(ids); err != nil {
		return nil, err
	}
	var all []Wrong
	var right []*unpacked
	for i := range sources {
		if sources[i].Known {
			continue
		}
		// What is wrong, or isn't there, can't tell what is right on top of it.
		apart := len(all) > 0 || !u.allThere(i)
		wrong, err := u.proveLayer(ctx, i, apart)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return all, fmt.Errorf("check layer %s: %w", sources[i].DiffID, err)
		}
		if wrong != nil {
			all = append(all, *wrong)
		} else if u.layers[i].whole {
			right = append(right, u.layers[i])
		}
	}
	if len(right) == 0 {
		return all, nil
	}
	return all, s.trust(ctx, right...)
}

// proveLayer proves one. Where those below are no help (apart), only the blob of
// a layer that needs them is looked at.
func (u *unpacking) proveLayer(ctx context.Context, i int, apart bool) (*Wrong, error) {
	// Who holds the lock owns what lies in .staging under the layer's name, and
	// nobody takes the layer away.
	unlock, err := u.store.lockLayers(ctx, []string{u.sources[i].DiffID})
	if err != nil {
		return nil, err
	}
	defer unlock()
	there := u.layers[i]
	if there.key == "" || there.chained() && apart {
		return u.wrongBlob(ctx, i, u.prove(ctx, i, there))
	}
	again := &unpacked{diffHex: there.diffHex, chain: there.chain, meta: Meta{DiffID: there.meta.DiffID}}
	defer func() {
		if again.layer != nil {
			again.layer.Close()
		}
		_ = os.RemoveAll(again.staging)
	}()
	if err := u.extractOne(ctx, i, again); err != nil {
		return u.wrongBlob(ctx, i, err)
	}
	pending := again.layer.Pending()
	below := u.below(i)
	again.layer.belowOwners = ownersBelow(below)
	if err := again.layer.Finish(ctx, below); err != nil {
		return u.wrongBlob(ctx, i, err)
	}
	again.layer.describe(&again.meta)
	fact, err := u.store.compare(ctx, there, again, pending)
	if err != nil {
		return nil, err
	}
	if there.whole = fact == ""; there.whole {
		return nil, nil
	}
	return &Wrong{Layer: i, Key: there.key, Fact: fact}, nil
}

// allThere says whether the layers below are.
func (u *unpacking) allThere(i int) bool {
	for _, l := range u.layers[:i] {
		if l.key == "" {
			return false
		}
	}
	return true
}

// wrongBlob tells what is wrong with a blob from what is with this machine.
func (u *unpacking) wrongBlob(ctx context.Context, i int, err error) (*Wrong, error) {
	var errno unix.Errno
	switch {
	case err == nil:
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &errno):
		return nil, err
	}
	return &Wrong{Layer: i, Fact: err.Error()}, nil
}

// compare says what of a layer isn't as when it is unpacked again; "": nothing.
func (s *Store) compare(ctx context.Context, there, again *unpacked, pending bool) (string, error) {
	if again.layer != nil {
		if err := again.layer.writeOwners(filepath.Join(again.staging, ownersFile)); err != nil {
			return "", err
		}
	}
	a, b := there.meta, again.meta
	if a.Opaque != b.Opaque || there.chained() != pending || (a.Root == nil) != (b.Root == nil) || a.Root != nil && *a.Root != *b.Root {
		return "its " + metaFile + " is not that of its blob", nil
	}
	ours, err := os.ReadFile(filepath.Join(s.layerPath(there.key), ownersFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	theirs, err := os.ReadFile(filepath.Join(again.staging, ownersFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if !bytes.Equal(ours, theirs) {
		return "its file " + ownersFile + " is not that of its blob", nil
	}
	c := comparing{ctx: ctx, bufs: [2][]byte{make([]byte, fileBuffer), make([]byte, fileBuffer)}}
	return c.roots(s.fsPath(there.key), filepath.Join(again.staging, "fs"))
}
