package images

import (
	"errors"
	"os"
	"slices"
	"testing"

	"nook/internal/testenv/testimage"
)

func TestRemoveByName(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	if err := s.Tag(t.Context(), "small:1", "small:2"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Remove(t.Context(), "small:1", RemoveOptions{InUse: func(Image) []string { return []string{"web"} }})
	if err != nil || !slices.Equal(got.Untagged, []string{"docker.io/library/small:1"}) || got.Deleted != nil || got.DiffIDs != nil {
		t.Errorf("one name of two: got %+v, %v; want it untagged, though a container uses the image", got, err)
	}
	if _, err := s.Resolve("small:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("small:1 is still there: %v", err)
	}
	cfg, err := s.Config(img)
	if err != nil {
		t.Fatal(err)
	}
	got, err = s.Remove(t.Context(), "small:2", RemoveOptions{})
	if err != nil || !slices.Equal(got.Untagged, []string{"docker.io/library/small:2"}) || !slices.Equal(got.Deleted, []string{img.ID}) {
		t.Errorf("the last name: got %+v, %v", got, err)
	}
	if !slices.Equal(got.DiffIDs, cfg.RootFS.DiffIDs) || !slices.Equal(got.ChainIDs, chainIDs(cfg.RootFS.DiffIDs)) {
		t.Errorf("got layers %q and chains %q, want those of %q", got.DiffIDs, got.ChainIDs, cfg.RootFS.DiffIDs)
	}
	wantEmpty(t, s)
	_, err = s.Remove(t.Context(), "small:2", RemoveOptions{})
	wantError(t, err, "no such image", "nook images")
}

func TestRemoveByID(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	if err := s.Tag(t.Context(), "small:1", "other"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Remove(t.Context(), ShortID(img.ID), RemoveOptions{})
	if !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want %v", err, ErrInUse)
	}
	wantError(t, err, "under several names: small:1, other:latest", "-f")
	got, err := s.Remove(t.Context(), ShortID(img.ID), RemoveOptions{Force: true})
	if err != nil || len(got.Untagged) != 2 || !slices.Equal(got.Deleted, []string{img.ID}) {
		t.Errorf("got %+v, %v", got, err)
	}
	wantEmpty(t, s)
}

func TestRemoveByDigest(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	if err := s.Tag(t.Context(), "small:1", "small:2"); err != nil {
		t.Fatal(err)
	}
	name := "small@" + img.Manifest.Digest
	_, err := s.Remove(t.Context(), name, RemoveOptions{})
	wantError(t, err, "under several names", "-f")
	if err := s.Tag(t.Context(), "small:1", "other"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Remove(t.Context(), name, RemoveOptions{Force: true})
	if err != nil || len(got.Untagged) != 2 || got.Deleted != nil {
		t.Errorf("got %+v, %v; want both names of the repository gone and the image kept", got, err)
	}
	if _, err := s.Resolve("other"); err != nil {
		t.Error(err)
	}
}

func TestRemoveKeepsWhatContainersUse(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	asked := ""
	opts := RemoveOptions{InUse: func(img Image) []string { asked = img.ID; return []string{"web", "db"} }}
	_, err := s.Remove(t.Context(), "small:1", opts)
	wantError(t, err, "image is in use by container web, db", "nook rm web db")
	if !errors.Is(err, ErrInUse) || asked != img.ID {
		t.Errorf("got %v after asking for %q", err, asked)
	}
	opts.Force = true
	got, err := s.Remove(t.Context(), "small:1", opts)
	if err != nil || len(got.Untagged) != 1 || got.Deleted != nil {
		t.Errorf("by force: got %+v, %v; want the name gone and the image kept", got, err)
	}
	left, err := s.Resolve(img.ID)
	if err != nil || len(left.Names) != 0 {
		t.Fatalf("got %+v, %v; want the image without a name", left, err)
	}
	if _, err := s.Layers(left); err != nil {
		t.Error(err)
	}
	// By its ID only what runs holds it.
	opts.Running = func(Image) []string { return []string{"db"} }
	_, err = s.Remove(t.Context(), img.ID, opts)
	wantError(t, err, "image is in use by running container db", "nook stop db")
	opts.Running = nil
	got, err = s.Remove(t.Context(), img.ID, opts)
	if err != nil || !slices.Equal(got.Deleted, []string{img.ID}) || got.Bytes <= 0 {
		t.Errorf("by force and ID: got %+v, %v; want it gone", got, err)
	}
	wantEmpty(t, s)
}

func TestRemoveKeepsSharedLayers(t *testing.T) {
	s := newStore(t)
	base, upper := small(), small()
	base.Name, base.Layers = "base:1", base.Layers[:1]
	loadImage(t, s, base)
	img := loadImage(t, s, upper)
	layers, err := s.Layers(img)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Remove(t.Context(), "small:1", RemoveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.DiffIDs, []string{layers[1].DiffID}) || len(got.ChainIDs) != 1 {
		t.Errorf("got %+v, want only the upper layer to be unused", got)
	}
	if _, err := os.Stat(layers[0].BlobPath); err != nil {
		t.Errorf("shared layer: %v", err)
	}
	if _, err := os.Stat(layers[1].BlobPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("upper layer: got %v, want it gone", err)
	}
	if _, err := s.Remove(t.Context(), "base:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, s)
}

// One config under two manifests, here with layers packed in two ways.
func TestRemoveTwins(t *testing.T) {
	s := newStore(t)
	a, b := small(), small()
	b.Name, b.Compression = "small:gz", testimage.Gzip
	imgA, imgB := loadImage(t, s, a), loadImage(t, s, b)
	if imgA.ID != imgB.ID || imgA.Manifest.Digest == imgB.Manifest.Digest {
		t.Fatalf("%+v and %+v are not twins", imgA, imgB)
	}
	got, err := s.Remove(t.Context(), "small:1", RemoveOptions{InUse: func(Image) []string { return []string{"web"} }})
	if err != nil || got.Deleted != nil || got.DiffIDs != nil {
		t.Errorf("got %+v, %v; want the manifest gone and the image kept by its twin", got, err)
	}
	if _, err := s.Layers(imgB); err != nil {
		t.Error(err)
	}
	if got, err = s.Remove(t.Context(), imgB.ID, RemoveOptions{}); err != nil || !slices.Equal(got.Deleted, []string{imgB.ID}) {
		t.Errorf("got %+v, %v", got, err)
	}
	wantEmpty(t, s)
}

// An image that can't be read can be removed, and costs no other a blob.
func TestRemoveDamaged(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, one("x:1", "x"))
	other := loadImage(t, s, one("y:1", "y"))
	if err := os.Remove(s.blobPath(img.Manifest.Digest)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Remove(t.Context(), "x:1", RemoveOptions{}); err != nil || !slices.Equal(got.Deleted, []string{img.ID}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.Layers(other); err != nil {
		t.Error(err)
	}
}
