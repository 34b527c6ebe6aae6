package nooktest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"nook/engine"
	"nook/internal/atomicfile"
	"nook/internal/lockfile"
)

// rootVariable is where the data root is, also for the engines that tests open
// by themselves.
const rootVariable = "NOOK_ROOT"

// A data root of ours is a directory with this prefix and a lock in it, which
// its test process holds as long as it lives.
const (
	rootPrefix = "nooktest-root-"
	rootLock   = "nooktest.lock"
)

// shareRoot points rootVariable to a data root, and removes those that nobody
// has any more. remove removes the one that was made.
func shareRoot() (remove func() error, err error) {
	if os.Getenv(rootVariable) != "" {
		return func() error { return nil }, nil
	}
	sweep()
	root, unlock, err := makeRoot()
	if err != nil {
		return nil, err
	}
	return func() error {
		defer unlock()
		return removeRoot(root)
	}, os.Setenv(rootVariable, root)
}

// makeRoot makes a data root. A sweep may take it for an abandoned one before
// it is locked: then there has to be another.
func makeRoot() (root string, unlock func(), err error) {
	for {
		if root, err = os.MkdirTemp("", rootPrefix); err != nil {
			return "", nil, err
		}
		lock := filepath.Join(root, rootLock)
		unlock, err = lockfile.TryLock(lock)
		if err == nil {
			if _, err = os.Stat(lock); err == nil {
				return root, unlock, nil
			}
			unlock()
		}
		if !errors.Is(err, lockfile.ErrHeld) && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, err
		}
	}
}

// sweep removes the data roots of test processes that were killed. One that
// can't be removed is tried again another time.
func sweep() {
	roots, _ := filepath.Glob(filepath.Join(os.TempDir(), rootPrefix+"*"))
	for _, root := range roots {
		lock := filepath.Join(root, rootLock)
		if _, err := os.Lstat(lock); err != nil {
			_ = os.Remove(root) // killed before it made the lock
			continue
		}
		unlock, err := lockfile.TryLock(lock)
		if err != nil { // somebody's, or another user's
			continue
		}
		_ = removeRoot(root)
		unlock()
	}
}

// removeRoot removes a data root with all that is in it. What containers' ids
// own, only the engine can.
func removeRoot(root string) error {
	ctx := context.Background()
	e, err := engine.Open(ctx, engine.Options{Root: root})
	if err != nil {
		return errors.Join(err, os.RemoveAll(root))
	}
	list, err := e.List(ctx, engine.ListOptions{All: true})
	errs := []error{err}
	for _, ct := range list {
		errs = append(errs, e.RemoveContainer(ctx, ct.ID, engine.RemoveOptions{Force: true}))
	}
	images, err := e.Images(ctx)
	errs = append(errs, err)
	for _, img := range images {
		_, err := e.RemoveImage(ctx, img.ID, true)
		errs = append(errs, err)
	}
	if err := os.RemoveAll(root); err != nil {
		return errors.Join(append(errs, err)...)
	}
	return nil // and with it what went wrong before
}

// load gives the id of the first image of an archive, which is loaded when the
// data root hasn't got it yet. Which archive was loaded stands in a file in it:
// the tests of one binary run in several processes, and several binaries may
// share a root.
func load(ctx context.Context, e *engine.Engine, archive string) (id string, err error) {
	key, err := keyOf(archive)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(os.Getenv(rootVariable), "nooktest")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("load %s: %w", archive, err)
	}
	unlock, err := lockfile.Lock(ctx, filepath.Join(dir, key+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	loaded := filepath.Join(dir, key)
	if data, err := os.ReadFile(loaded); err == nil {
		if _, err := e.InspectImage(ctx, string(data)); err == nil {
			return string(data), nil
		}
	}
	images, err := e.Load(ctx, engine.LoadOptions{Path: archive})
	if err != nil {
		return "", err
	}
	if len(images) == 0 {
		return "", fmt.Errorf("load %s: there is no image in it", archive)
	}
	return images[0].ID, atomicfile.Write(loaded, []byte(images[0].ID), 0o600, atomicfile.Volatile)
}

// keyOf names an archive as it is now.
func keyOf(archive string) (string, error) {
	path, err := filepath.Abs(archive)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(path)
	if err == nil && st.IsDir() {
		st, err = os.Stat(filepath.Join(path, "index.json")) // of an OCI layout
	}
	if err != nil {
		return "", fmt.Errorf("image archive: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", path, st.Size(), st.ModTime().UnixNano()))
	return fmt.Sprintf("%x", sum[:8]), nil
}
