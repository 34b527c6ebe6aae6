package engine

import (
	"context"
	"errors"
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

// inModes runs f for each way of ids, with the image busybox.
func inModes(t *testing.T, f func(t *testing.T, e *Engine)) {
	t.Helper()
	for _, ids := range []string{"mapped", "single"} {
		t.Run(ids, func(t *testing.T) { f(t, loaded(t, ids, nil)) })
	}
}
