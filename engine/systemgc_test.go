package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/images/layers"
)

// TestCollectBesideALoad: layers come before the image that has them.
func TestCollectBesideALoad(t *testing.T) {
	inModes(t, func(t *testing.T, e *Engine) {
		img, err := e.images.Resolve("busybox")
		if err != nil {
			t.Fatal(err)
		}
		pins := e.pins(t.Context())
		defer pins.release()
		list, err := e.images.Layers(img)
		if err != nil {
			t.Fatal(err)
		}
		if err := pins.unpack(t.Context(), img, list); err != nil {
			t.Fatal(err)
		}
		if list[0].UnpackedSize <= 0 || list[0].UnpackedSize != img.UnpackedSize {
			t.Errorf("counted %d bytes, and the image says %d", list[0].UnpackedSize, img.UnpackedSize)
		}
		if _, err := e.RemoveImage(t.Context(), "busybox", false); err != nil {
			t.Fatal(err)
		}
		if _, err := e.layers.Chain(diffIDs(list)); err != nil {
			t.Errorf("pinned layers: %v", err)
		}
		pins.release()
		if freed, err := e.collect(t.Context()); err != nil || freed != img.UnpackedSize {
			t.Errorf("freed %d, %v, want %d", freed, err, img.UnpackedSize)
		}
		if _, err := e.layers.Chain(diffIDs(list)); !errors.Is(err, layers.ErrNotUnpacked) {
			t.Errorf("got %v, want ErrNotUnpacked", err)
		}
	})
}

// TestCollectWaitsForACreate: between the look at the chain and the record.
func TestCollectWaitsForACreate(t *testing.T) {
	inModes(t, func(t *testing.T, e *Engine) {
		used, err := e.useLayers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer used()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := e.collect(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// TestCollectBesideABrokenImage: whose layers are unknown, so that none goes,
// and all else does.
func TestCollectBesideABrokenImage(t *testing.T) {
	inModes(t, func(t *testing.T, e *Engine) {
		img, err := e.images.Resolve("busybox")
		if err != nil {
			t.Fatal(err)
		}
		list, err := e.images.Layers(img)
		if err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(e.root, "images", "blobs", "sha256", strings.TrimPrefix(img.ID, "sha256:"))
		if err := errors.Join(os.Remove(config), os.WriteFile(config, make([]byte, 9<<20), 0o600)); err != nil {
			t.Fatal(err)
		}
		var notes []string
		e.opts.Note = func(text string) { notes = append(notes, text) }
		if freed, err := e.collect(t.Context()); freed != 0 || err != nil {
			t.Errorf("freed %d, %v", freed, err)
		}
		if len(notes) != 1 || !strings.Contains(notes[0], "busybox:latest: read image config: is larger than 8 MiB") {
			t.Errorf("told %q", notes)
		}
		if _, err := e.layers.Chain(diffIDs(list)); err != nil {
			t.Errorf("its layers: %v", err)
		}
		if _, err := e.collect(t.Context(), "some-layer"); err == nil || !strings.Contains(err.Error(), "larger than 8 MiB") {
			t.Errorf("of a damaged layer: got %v", err)
		}
		if _, err := e.BuildCache(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// inModes runs f for each way of ids, with the image busybox.
func inModes(t *testing.T, f func(t *testing.T, e *Engine)) {
	t.Helper()
	for _, ids := range []string{"mapped", "single"} {
		t.Run(ids, func(t *testing.T) { f(t, loaded(t, ids, nil)) })
	}
}
