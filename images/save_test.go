package images

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

func save(t *testing.T, s *Store, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Save(t.Context(), &b, names); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func names(list []Image) (all []string) {
	for _, img := range list {
		all = append(all, img.Names...)
	}
	return all
}

func TestSaveAndLoad(t *testing.T) {
	s := newStore(t)
	packed := one("packed:1", "body")
	packed.Compression = testimage.Gzip
	loadImage(t, s, packed)
	two := small()
	loadImage(t, s, two)
	if err := s.Tag(t.Context(), "small:1", "small:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), "small:1", "localhost:5000/team/small:1"); err != nil {
		t.Fatal(err)
	}
	img, _ := s.Resolve("small:1")
	for name, tc := range map[string]struct {
		given []string
		want  []string
		count int
	}{
		"one":           {[]string{"small:1"}, []string{"docker.io/library/small:1"}, 1},
		"a repository":  {[]string{"small"}, []string{"docker.io/library/small:1", "docker.io/library/small:2"}, 1},
		"an id":         {[]string{img.ID}, nil, 1},
		"a short id":    {[]string{ShortID(img.ID)}, nil, 1},
		"two of one":    {[]string{"small:2", "localhost:5000/team/small:1"}, []string{"docker.io/library/small:2", "localhost:5000/team/small:1"}, 1},
		"name and id":   {[]string{img.ID, "small:2"}, []string{"docker.io/library/small:2"}, 1},
		"two images":    {[]string{"packed:1", "small:1"}, []string{"docker.io/library/packed:1", "docker.io/library/small:1"}, 2},
		"twice":         {[]string{"packed:1", "packed:1"}, []string{"docker.io/library/packed:1"}, 1},
		"by its digest": {[]string{"small@" + img.Manifest.Digest}, []string{"docker.io/library/small:1", "docker.io/library/small:2"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			archive := save(t, s, tc.given...)
			if again := save(t, s, tc.given...); !bytes.Equal(archive, again) {
				t.Error("the second archive differs")
			}
			other := newStore(t)
			got := load(t, other, archive)
			if !slices.Equal(names(got), tc.want) || len(got) != tc.count {
				t.Errorf("got %d images %q, want %d %q", len(got), names(got), tc.count, tc.want)
			}
			for _, g := range got {
				if _, err := s.Resolve(g.ID); err != nil {
					t.Error(err)
				}
				mine, _ := s.Manifest(g) // the same bytes
				theirs, err := other.Manifest(g)
				if err != nil || len(mine.Layers) != len(theirs.Layers) {
					t.Errorf("got manifest %+v, %v, want %+v", theirs, err, mine)
				}
			}
			if left, _ := os.ReadDir(s.path(stagingDir)); len(left) != 0 {
				t.Errorf("staging left: %v", left)
			}
		})
	}
}

// TestSaveIsAsDockersToOthers: docker before 25 and podman read manifest.json.
func TestSaveIsAsDockersToOthers(t *testing.T) {
	s := newStore(t)
	load(t, s, bundleOf(t, small().WriteDocker).tar())
	b := readBundle(t, bytes.NewReader(save(t, s, "small:1")))
	b.remove(indexFile)
	b.remove(layoutFile)
	got := load(t, newStore(t), b.tar())
	want, _ := s.Resolve("small:1")
	if len(got) != 1 || got[0].ID != want.ID || !slices.Equal(got[0].Names, want.Names) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, h := range b.headers {
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.ModTime.Unix() != 0 {
			t.Errorf("%s: %+v, want an archive that is the same anywhere", h.Name, h)
		}
	}
	if b.headers[0].Name != layoutFile && b.headers[0].Name != dockerManifestFile {
		t.Errorf("begins with %s, want what tells what it is", b.headers[0].Name)
	}
}

// gate removes an image once the first byte is written.
type gate struct {
	io.Writer
	once func()
}

func (g *gate) Write(p []byte) (int, error) {
	if g.once != nil {
		g.once()
		g.once = nil
	}
	return g.Writer.Write(p)
}

func TestSaveOfAnImageThatIsRemovedMeanwhile(t *testing.T) {
	s := newStore(t)
	loadImage(t, s, small())
	var b bytes.Buffer
	w := &gate{&b, func() {
		if _, err := s.Remove(t.Context(), "small:1", RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}}
	if _, err := s.Save(t.Context(), w, []string{"small:1"}); err != nil {
		t.Fatal(err)
	}
	load(t, newStore(t), b.Bytes())
	wantEmpty(t, s)
}

func TestSaveTellsOfDamage(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"flipped": func(file string) error { return flip(file) },
		"cut":     func(file string) error { return os.Truncate(file, 100) },
	} {
		s := newStore(t)
		img := loadImage(t, s, small())
		m, err := s.Manifest(img)
		if err != nil {
			t.Fatal(err)
		}
		file := s.blobPath(m.Layers[1].Digest)
		if err := errors.Join(os.Chmod(file, 0o600), damage(file)); err != nil {
			t.Fatal(err)
		}
		_, err = s.Save(t.Context(), io.Discard, []string{"small:1"})
		if !errors.Is(err, ErrDigest) {
			t.Errorf("%s: got %v, want ErrDigest", name, err)
		}
		wantError(t, err, m.Layers[1].Digest, "system check")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		_, err = s.Save(t.Context(), io.Discard, []string{"small:1"})
		wantError(t, err, "small:1", "system check")
	}
	_, err := newStore(t).Save(t.Context(), io.Discard, []string{"nothing"})
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// flip changes one bit in the middle of a file.
func flip(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(file, data, 0o600)
}

func TestOthersReadWhatIsSaved(t *testing.T) {
	testenv.Need(t, "skopeo", testenv.Skopeo)
	s := newStore(t)
	packed := small()
	packed.Compression = testimage.Gzip
	img := loadImage(t, s, packed)
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, save(t, s, "small:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"docker-archive:" + file, "docker-archive:" + file + ":small:1", "oci-archive:" + file, "oci-archive:" + file + ":1"} {
		dir := t.TempDir()
		skopeo(t, "copy", from, "oci:"+dir+":x")
		got, err := newStore(t).Load(t.Context(), LoadOptions{Path: dir})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", from, got, err)
			continue
		}
		if from[:3] == "oci" && got[0].ID != img.ID {
			t.Errorf("%s: ID %s, want %s", from, got[0].ID, img.ID)
		}
	}
}
