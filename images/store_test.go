package images

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nook/internal/testenv/testimage"
)

func TestOpenMakesALayoutOnce(t *testing.T) {
	s := newStore(t)
	if got, want := files(t, s), []string{indexFile, layoutFile}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	loadImage(t, s, small())
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, again); len(got) != 1 {
		t.Errorf("opened again: got %d images, want 1", len(got))
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file was opened as a store")
	}
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	a := loadImage(t, s, one("quay.io/x/a:1", "a"))
	b := loadImage(t, s, one("b:latest", "b"))
	hex := hexOf(a.ID)
	for _, test := range []struct{ in, want string }{
		{"quay.io/x/a:1", a.ID},
		{"b", b.ID},
		{"b:latest", b.ID},
		{"docker.io/library/b", b.ID},
		{a.ID, a.ID},
		{hex, a.ID},
		{hex[:12], a.ID},
		{hex[:4], a.ID},
		{digestPrefix + hex[:5], a.ID},
		{"quay.io/x/a@" + a.Manifest.Digest, a.ID},
		{"quay.io/x/a:other@" + a.Manifest.Digest, a.ID},
	} {
		if img, err := s.Resolve(test.in); err != nil || img.ID != test.want {
			t.Errorf("%s: got %s, %v, want %s", test.in, img.ID, err, test.want)
		}
	}
	for _, in := range []string{"a", "b:1", hex[:3], "0000", digestPrefix, someDigest, "b@" + a.Manifest.Digest, "quay.io/x@" + a.Manifest.Digest} {
		_, err := s.Resolve(in)
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want %v", in, err, ErrNotFound)
		}
		wantError(t, err, `image "`+in+`": no such image`, "nook load")
	}
	_, err := s.Resolve("B")
	wantError(t, err, "upper case", "")
}

// index writes an index of our own making, for what content can't bring about.
func setIndex(t *testing.T, s *Store, entries ...Descriptor) {
	t.Helper()
	if err := s.writeIndex(&index{Manifests: entries}); err != nil {
		t.Fatal(err)
	}
}

func entryOf(manifest, config, name string) Descriptor {
	d := Descriptor{MediaType: mediaTypeManifest, Digest: digestPrefix + strings.Repeat(manifest, 64), Annotations: map[string]string{
		annotationConfig: digestPrefix + config + strings.Repeat("0", 64-len(config)),
	}}
	return withName(d, name)
}

func TestResolveAmbiguousID(t *testing.T) {
	s := newStore(t)
	setIndex(t, s, entryOf("1", "abcd1", "docker.io/library/x:1"), entryOf("2", "abcd2", ""), entryOf("3", "ef01", "docker.io/library/abcd:latest"),
		entryOf("4", "ffff", "docker.io/library/y:1"), entryOf("5", "ffff", "docker.io/library/y:2"))
	_, err := s.Resolve("abcd0")
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want %v", err, ErrNotFound)
	}
	_, err = s.Resolve("sha256:abcd")
	wantError(t, err, "image ID abcd: more than one image: abcd10000000 (x:1) and abcd20000000", "more digits")
	if !errors.Is(err, ErrAmbiguous) {
		t.Errorf("got %v, want %v", err, ErrAmbiguous)
	}
	// A name goes before an ID.
	if img, err := s.Resolve("abcd"); err != nil || !strings.HasPrefix(img.ID, "sha256:ef01") {
		t.Errorf("abcd: got %v, %v, want the image of this name", img, err)
	}
	// One config under two manifests is one image.
	if img, err := s.Resolve("ffff"); err != nil || img.Manifest.Digest[7] != '5' {
		t.Errorf("ffff: got %v, %v, want the last", img, err)
	}
}

func TestReadDamagedStore(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	if err := os.Chmod(s.blobPath(img.ID), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.blobPath(img.ID), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := s.Config(img)
	if !errors.Is(err, ErrDigest) {
		t.Errorf("config: got %v, want %v", err, ErrDigest)
	}
	// Loading the image again mends it.
	loadImage(t, s, small())
	if _, err := s.Config(img); err != nil {
		t.Errorf("after loading again: %v", err)
	}
	if err := os.WriteFile(s.path(indexFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.List(t.Context())
	wantError(t, err, "read image index "+s.path(indexFile)+": ", "")
}

func TestTag(t *testing.T) {
	s := newStore(t)
	a := loadImage(t, s, one("a:1", "a"))
	b := loadImage(t, s, one("b:1", "b"))
	for _, step := range []struct{ src, dst string }{
		{"a:1", "localhost:5000/x/a:2"}, // one more
		{hexOf(a.ID)[:8], "b:1"},        // takes the last name of b
		{b.ID, "c"},                     // which gets one again
		{"c", "c"},
		{b.ID, "d"},  // and another,
		{"a:1", "d"}, // and keeps the first
	} {
		if err := s.Tag(t.Context(), step.src, step.dst); err != nil {
			t.Fatalf("tag %s %s: %v", step.src, step.dst, err)
		}
	}
	want := map[string][]string{
		a.ID: {"docker.io/library/a:1", "docker.io/library/b:1", "docker.io/library/d:latest", "localhost:5000/x/a:2"},
		b.ID: {"docker.io/library/c:latest"},
	}
	got := list(t, s)
	for _, img := range got {
		slices.Sort(img.Names)
		if !slices.Equal(img.Names, want[img.ID]) {
			t.Errorf("%s: got names %q, want %q", ShortID(img.ID), img.Names, want[img.ID])
		}
		if img.Size == 0 || img.Created.IsZero() != (a.Created.IsZero()) {
			t.Errorf("%s lost what is cached: %+v", ShortID(img.ID), img)
		}
	}
	if idx, err := s.readIndex(); err != nil || len(idx.Manifests) != 5 || len(got) != 2 {
		t.Errorf("got %+v, %v and %d images, want one entry a name", idx, err, len(got))
	}
	wantError(t, s.Tag(t.Context(), "none", "x"), "no such image", "nook load")
	wantError(t, s.Tag(t.Context(), "a:1", "X"), "upper case", "")
	wantError(t, s.Tag(t.Context(), "a:1", "x@"+someDigest), "a digest can't be given", "leave out")
}

func TestAnnotate(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	if err := s.Tag(t.Context(), "small:1", "other"); err != nil {
		t.Fatal(err)
	}
	if err := s.Annotate(t.Context(), img, map[string]string{"made.from": "x", "gone": "y"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Annotate(t.Context(), img, map[string]string{"gone": ""}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"small:1", "other"} {
		got, err := s.Resolve(name)
		if err != nil || len(got.Annotations) != 1 || got.Annotations["made.from"] != "x" {
			t.Errorf("%s: got %v, %v, want made.from=x", name, got.Annotations, err)
		}
	}
	if err := s.Annotate(t.Context(), img, map[string]string{annotationConfig: "x"}); err == nil {
		t.Errorf("%s could be set", annotationConfig)
	}
}

// Loads and removals at once: each load is there as a whole or not at all.
func TestStoreIsSharedByManyWriters(t *testing.T) {
	s := newStore(t)
	archives := [][]byte{bundleOf(t, one("x:1", "one").WriteOCI).tar(), bundleOf(t, one("x:1", "two").WriteDocker).tar()}
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for range 5 {
				if _, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(archives[i%2])}); err != nil {
					t.Error(err)
				}
				if img, err := s.Resolve("x:1"); err == nil {
					// Somebody may have removed it since.
					if _, err := s.Layers(img); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
				}
				if _, err := s.Remove(t.Context(), "x:1", RemoveOptions{}); err != nil && !errors.Is(err, ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for _, img := range list(t, s) {
		layers, err := s.Layers(img)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			if data, err := os.ReadFile(l.BlobPath); err != nil || testimage.Digest(data) != l.Digest {
				t.Errorf("layer of %s: %v", ShortID(img.ID), err)
			}
		}
		if _, err := s.Remove(t.Context(), img.ID, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	wantEmpty(t, s)
}

func TestInspect(t *testing.T) {
	s := newStore(t)
	img := loadImage(t, s, small())
	if err := s.Tag(t.Context(), "small:1", "localhost:5000/x/small:2"); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(img.ID)
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.Inspect(img)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(in.RepoTags, []string{"small:1", "localhost:5000/x/small:2"}) {
		t.Errorf("got RepoTags %q", in.RepoTags)
	}
	if !slices.Equal(in.RepoDigests, []string{"small@" + img.Manifest.Digest, "localhost:5000/x/small@" + img.Manifest.Digest}) {
		t.Errorf("got RepoDigests %q", in.RepoDigests)
	}
	if in.ID != img.ID || in.Os != "linux" || in.Config.User != "1000" || in.RootFS.Type != "layers" || len(in.RootFS.Layers) != 2 {
		t.Errorf("got %+v", in)
	}
	text := string(mustJSON(t, in))
	for _, want := range []string{`"Id":"` + img.ID, `"Config":{"User":"1000","Env":["A=1"],"Cmd":["sh"]`, `"RootFS":{"Type":"layers","Layers":["sha256:`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
