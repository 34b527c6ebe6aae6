package images

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/unsynced"
)

// A pull, a load or an import doesn't wait until the disk has the layers' blobs:
// they are written down as such (internal/unsynced), and after another boot a
// blob is hashed before it is trusted. Manifests, configs and the index are
// on the disk: without them nobody knows what an image is. What is made here and
// can't be had again, by a commit or build, is synced as a whole.

// wentDown is what is wrong with a blob that didn't make it.
const wentDown = "the machine went down before the disk had it"

func (s *Store) ledger() unsynced.Ledger { return unsynced.Open(s.path(unsyncedDir), s.boot) }

// Settle flushes the blobs that came in, once one of them did longer than age
// ago.
func (s *Store) Settle(ctx context.Context, age time.Duration) error {
	return s.ledger().Settle(ctx, age, s.hasFile, s.flush)
}

// Forget forgets the blobs that were removed.
func (s *Store) Forget(ctx context.Context) error { return s.ledger().Forget(ctx, s.hasFile) }

func (s *Store) hasFile(digest string) bool {
	_, err := os.Lstat(s.blobPath(digest))
	return err == nil
}

// flush waits until the disk has all of the store's file system.
func (s *Store) flush() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("flush images: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("flush images: syncfs: %w", err)
	}
	return nil
}

// secure brings the documents of images to the disk, and the names of all
// other blobs that are theirs and new, in the background.
func (g *staging) secure(ctx context.Context, found []candidate) (wait func() error) {
	documents := make(map[string]bool)
	var rest []string
	for _, c := range found {
		documents[c.desc.Digest], documents[c.manifest.Config.Digest] = true, true
		for _, l := range c.manifest.Layers {
			if _, err := os.Lstat(g.store.blobPath(l.Digest)); err != nil {
				rest = append(rest, l.Digest)
			}
		}
	}
	synced := g.syncSome(func(digest string) bool { return documents[digest] })
	marked := make(chan error, 1)
	go func() { marked <- g.store.ledger().Mark(ctx, rest) }()
	return func() error {
		err := synced()
		if markErr := <-marked; err == nil {
			err = g.full(markErr)
		}
		return err
	}
}

// lazy are the digests of what is kept and not synced. What was taken from the
// store has its mark, if it needs one.
func (g *staging) lazy() []string {
	var list []string
	for digest, path := range g.kept {
		if g.synced[digest] {
			continue
		}
		ours, err := os.Lstat(path)
		theirs, theirErr := os.Lstat(g.store.blobPath(digest))
		if err != nil || theirErr != nil || !os.SameFile(ours, theirs) {
			list = append(list, digest)
		}
	}
	return list
}

// Prove hashes those of an image's blobs that the disk may have lost when the
// machine went down. Of one that is damaged the error tells, and what to do.
func (s *Store) Prove(ctx context.Context, img Image) error {
	suspects, err := s.ledger().Suspects()
	if err != nil || len(suspects) == 0 {
		return err
	}
	m, err := s.Manifest(img)
	if err != nil {
		return err
	}
	for i, l := range m.Layers {
		if !suspects[l.Digest] {
			continue
		}
		fact, err := s.prove(ctx, l)
		if err != nil {
			return err
		}
		if fact != "" {
			name, advice := ShortID(img.ID), "load it again"
			if len(img.Names) > 0 {
				name = FamiliarName(img.Names[0])
			}
			if len(img.Sources) > 0 {
				advice = "nook pull " + name + " brings it again; nook system check --repair mends all that can be fetched"
			}
			return hint.Errorf(advice, "image %s is damaged: layer %d: its blob %s: %s", name, i+1, fact, wentDown)
		}
	}
	return nil
}

// prove hashes a suspect; "" says that it is right, and no suspect any more.
func (s *Store) prove(ctx context.Context, d Descriptor) (fact string, err error) {
	info, err := os.Lstat(s.blobPath(d.Digest))
	switch {
	case err != nil:
		return "is lost", nil //nolint:nilerr // this is what is wrong
	case info.Size() != d.Size:
		return fmt.Sprintf("has %d bytes and should have %d", info.Size(), d.Size), nil
	}
	if fact, err = s.hashBlob(ctx, d.Digest, func(int64) {}); err != nil {
		return "", err
	}
	if fact != "" {
		return "has other content", nil
	}
	_ = s.ledger().Trust(ctx, d.Digest) // a store that is full or read-only: it is hashed again
	return "", nil
}
