package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"nook/internal/hint"
	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// change is a layer of one file.
func change(t testing.TB, name string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(name)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = io.WriteString(w, name)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestCommitAddsALayer(t *testing.T) {
	s := newStore(t)
	img := small()
	img.Compression = testimage.Gzip
	base := loadImage(t, s, img)
	var unpacked []Layer
	o := CommitOptions{
		Base: base, Layer: change(t, "new"), Name: "kept:1", Author: "me", CreatedBy: "sh", Message: "why",
		Config: ContainerConfig{Cmd: []string{"other"}}, Created: time.Unix(1, 0),
		Unpack: func(_ context.Context, _ Image, layers []Layer) error {
			unpacked = slices.Clone(layers)
			return nil
		},
	}
	got, err := s.Commit(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.Resolve("kept:1"); err != nil || found.ID != got.ID {
		t.Errorf("its name leads to %+v, %v", found, err)
	}
	before, err := s.Config(base)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.Config(got)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Author != "me" || !slices.Equal(cfg.Config.Cmd, []string{"other"}) || cfg.Config.User != "" || !cfg.Created.Equal(o.Created) {
		t.Errorf("its config is %+v", cfg)
	}
	if n := len(before.RootFS.DiffIDs); len(cfg.RootFS.DiffIDs) != n+1 || !slices.Equal(cfg.RootFS.DiffIDs[:n], before.RootFS.DiffIDs) {
		t.Errorf("its diff ids are %v, those of the base %v", cfg.RootFS.DiffIDs, before.RootFS.DiffIDs)
	}
	last := cfg.History[len(cfg.History)-1]
	if last.Author != "me" || last.CreatedBy != "sh" || last.Comment != "why" || last.EmptyLayer {
		t.Errorf("its history ends with %+v", last)
	}
	m, err := s.Manifest(got)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range m.Layers {
		if l.MediaType != mediaTypeLayerGzip || unpacked[i].Digest != l.Digest {
			t.Errorf("layer %d is %+v, unpacked was %+v", i, l, unpacked[i])
		}
	}
	// The same once more is the same image.
	o.Layer = change(t, "new")
	if again, err := s.Commit(t.Context(), o); err != nil || again.ID != got.ID || again.Manifest.Digest != got.Manifest.Digest {
		t.Errorf("once more: %+v, %v, want %+v", again, err, got)
	}
}

func TestCommitOfNoChangeAddsNoLayer(t *testing.T) {
	s := newStore(t)
	base := loadImage(t, s, small())
	var empty bytes.Buffer
	if err := tar.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Commit(t.Context(), CommitOptions{Base: base, Layer: &empty})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.Config(got)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.RootFS.DiffIDs) != 2 || !cfg.History[len(cfg.History)-1].EmptyLayer {
		t.Errorf("got %+v", cfg)
	}
}

func TestCommitOnAnImageWithoutHistoryTellsWhichLayerItMade(t *testing.T) {
	s := newStore(t)
	base := loadImage(t, s, small())
	if cfg, err := s.Config(base); err != nil || len(cfg.History) != 0 || len(cfg.RootFS.DiffIDs) != 2 {
		t.Fatalf("the base is %+v, %v; want two layers and no history", cfg, err)
	}
	got, err := s.Commit(t.Context(), CommitOptions{Base: base, Layer: change(t, "new"), CreatedBy: "sh"})
	if err != nil {
		t.Fatal(err)
	}
	steps, err := s.History(got, []int64{10, 20, 30})
	if err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, step := range steps {
		made = append(made, fmt.Sprint(step.Size, step.CreatedBy))
	}
	if want := []string{"30sh", "20", "10"}; !slices.Equal(made, want) {
		t.Errorf("its steps are %q, want %q", made, want)
	}
}

func TestAssembleOnAnImageWithoutHistoryTellsWhichLayersItMade(t *testing.T) {
	s := newStore(t)
	base := loadImage(t, s, small())
	layer := func(name string) NewLayer {
		return NewLayer{Open: func() (io.ReadCloser, error) { return io.NopCloser(change(t, name)), nil }}
	}
	got, err := s.Assemble(t.Context(), AssembleOptions{
		Base: hold(t, s, base), Layers: []NewLayer{layer("one"), layer("two")},
		Config: ImageConfig{History: []History{{CreatedBy: "COPY one"}, {CreatedBy: "ENV a=b", EmptyLayer: true}, {CreatedBy: "COPY two"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := s.Config(got)
	if err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, step := range cfg.History {
		made = append(made, fmt.Sprint(step.CreatedBy, step.EmptyLayer))
	}
	want := []string{"false", "false", "COPY onefalse", "ENV a=btrue", "COPY twofalse"}
	if !slices.Equal(made, want) {
		t.Errorf("its history is %q, want %q", made, want)
	}
}

func TestNothingGrowsAboveWhatOverlayfsStacks(t *testing.T) {
	s := newStore(t)
	base := loadImage(t, s, small())
	layers := make([]NewLayer, maxLayers-1)
	for i := range layers {
		layers[i].Open = func() (io.ReadCloser, error) { return io.NopCloser(change(t, "one")), nil }
	}
	const want = "the image has 501 layers, more than the 500 that overlayfs stacks"
	if _, err := s.Assemble(t.Context(), AssembleOptions{Base: hold(t, s, base), Layers: layers}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	full, err := s.Assemble(t.Context(), AssembleOptions{Base: hold(t, s, base), Layers: layers[1:]})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), CommitOptions{Base: full, Layer: change(t, "new")}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// TestCommitThatEndsEarlyLeavesNothing: the stream breaks off, its context
// ends, unpacking fails, the base goes.
func TestCommitThatEndsEarlyLeavesNothing(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		change func(context.CancelFunc, *Store, *CommitOptions)
		want   error
	}{
		"stream": {func(_ context.CancelFunc, _ *Store, o *CommitOptions) {
			o.Layer = io.MultiReader(io.LimitReader(o.Layer, 700), failing{broken})
		}, broken},
		"context": {func(cancel context.CancelFunc, _ *Store, o *CommitOptions) {
			o.Unpack = func(context.Context, Image, []Layer) error { cancel(); return nil }
		}, context.Canceled},
		"unpack": {func(_ context.CancelFunc, _ *Store, o *CommitOptions) {
			o.Unpack = func(context.Context, Image, []Layer) error { return broken }
		}, broken},
		"base": {func(_ context.CancelFunc, s *Store, o *CommitOptions) {
			o.Unpack = func(ctx context.Context, _ Image, _ []Layer) error {
				_, err := s.Remove(ctx, "small:1", RemoveOptions{})
				return err
			}
		}, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			before := files(t, s)
			o := CommitOptions{Base: loadImage(t, s, small()), Layer: change(t, "new"), Name: "kept"}
			if name != "base" {
				before = files(t, s)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tc.change(cancel, s, &o)
			if _, err := s.Commit(ctx, o); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if after := files(t, s); !slices.Equal(after, before) {
				t.Errorf("the store holds %v, before %v", after, before)
			}
		})
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestSkopeoReadsACommittedImage(t *testing.T) {
	testenv.Need(t, "skopeo", testenv.Skopeo)
	s := newStore(t)
	base := loadImage(t, s, small())
	if _, err := s.Commit(t.Context(), CommitOptions{Base: base, Layer: change(t, "new"), Name: "kept:1"}); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir() + "/kept.tar"
	skopeo(t, "copy", "oci:"+s.dir+":docker.io/library/kept:1", "docker-archive:"+out+":kept:1")
	var inspected struct{ Layers []string }
	if err := json.Unmarshal([]byte(skopeo(t, "inspect", "docker-archive:"+out)), &inspected); err != nil || len(inspected.Layers) != 3 {
		t.Errorf("skopeo sees %+v, %v", inspected, err)
	}
	if !strings.HasPrefix(inspected.Layers[2], "sha256:") {
		t.Errorf("skopeo sees %+v", inspected)
	}
}

func hold(t *testing.T, s *Store, img Image) *Held {
	t.Helper()
	h, err := s.Hold(img, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// An image that nook couldn't read again doesn't come into the store.
func TestTooLongConfigsAreRefused(t *testing.T) {
	s := newStore(t)
	base := loadImage(t, s, small())
	long := ContainerConfig{Labels: map[string]string{"a": strings.Repeat("x", maxJSON)}}
	_, err := s.Commit(t.Context(), CommitOptions{Base: base, Layer: change(t, "new"), Config: long})
	tooLong(t, "commit", err)
	_, err = s.Import(t.Context(), ImportOptions{Input: change(t, "new"), Config: long})
	tooLong(t, "import", err)
	cfg := ImageConfig{Config: long}
	_, err = s.Assemble(t.Context(), AssembleOptions{Base: hold(t, s, base), Config: cfg, Layers: []NewLayer{
		{Open: func() (io.ReadCloser, error) { return io.NopCloser(change(t, "new")), nil }},
	}})
	tooLong(t, "assemble", err)
	if list, err := s.List(t.Context()); len(list) != 1 || err != nil {
		t.Errorf("got %d images, %v", len(list), err)
	}
}

func tooLong(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "bytes, over the 8 MiB that are read of one") || hint.Of(err) == "" {
		t.Errorf("%s: got %v (%s)", what, err, hint.Of(err))
	}
}
