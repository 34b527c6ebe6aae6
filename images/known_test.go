package images

import (
	"bytes"
	"context"
	"testing"

	"nook/internal/testenv/testimage"
)

// TestLayersOfImagesThatAreHereAreKnown: a pair of blob and diff id that an
// image of the store has isn't looked at again; a blob alone is no pair.
func TestLayersOfImagesThatAreHereAreKnown(t *testing.T) {
	s := newStore(t)
	known := map[string]bool{}
	load := func(b *bundle) error {
		_, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(b.tar()), Unpack: func(_ context.Context, _ Image, layers []Layer) error {
			clear(known)
			for _, l := range layers {
				known[l.Digest] = l.Known
			}
			return nil
		}})
		return err
	}
	first := one("x:1", "x")
	first.Compression = testimage.Gzip
	second := first
	second.Name = "y:1"
	second.Layers = append(append([]testimage.Layer{}, first.Layers...), testimage.Layer{Entries: []testimage.Entry{testimage.File("more", 0o644, "more")}})
	count := func(want int) {
		t.Helper()
		n := 0
		for _, k := range known {
			if k {
				n++
			}
		}
		if n != want {
			t.Errorf("known are %v, want %d", known, want)
		}
	}
	if err := load(bundleOf(t, first.WriteOCI)); err != nil {
		t.Fatal(err)
	}
	count(0)
	if err := load(bundleOf(t, second.WriteOCI)); err != nil {
		t.Fatal(err)
	}
	count(1)
	if err := load(bundleOf(t, second.WriteOCI)); err != nil {
		t.Fatal(err)
	}
	count(2)
	// The same blobs, which are said to be each other.
	b := bundleOf(t, second.WriteOCI)
	b.editManifest(func(m *Manifest) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] })
	if err := load(b); err != nil {
		t.Fatal(err)
	}
	count(0)
}
