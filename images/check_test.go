package images

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"nook/internal/testenv/testimage"
)

func check(t *testing.T, s *Store, repair bool) Checked {
	t.Helper()
	got, err := s.Check(t.Context(), CheckOptions{Repair: repair})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// facts are what was found, a line each.
func facts(c Checked) string {
	var lines []string
	for _, f := range c.Findings {
		lines = append(lines, f.Object+": "+f.Fact+" ["+f.Mended+"]")
	}
	return strings.Join(lines, "\n")
}

func TestCheckOfAWholeStore(t *testing.T) {
	s := newStore(t)
	loadImage(t, s, small())
	packed := one("packed:1", "body")
	packed.Compression = testimage.Gzip
	loadImage(t, s, packed)
	stage, err := s.stage(t.Context()) // somebody is at work
	if err != nil {
		t.Fatal(err)
	}
	defer stage.close()
	got := check(t, s, false)
	if len(got.Findings) != 0 || got.Images != 2 || got.Blobs != 7 {
		t.Errorf("got %+v, want 2 images of 7 blobs and nothing found", got)
	}
}

// TestCheckFindsAndMends: whatever is damaged, the other image stays, and after
// a repair nothing is left to find.
func TestCheckFindsAndMends(t *testing.T) {
	layer := func(s *Store, img Image) string {
		m, err := s.Manifest(img)
		if err != nil {
			t.Fatal(err)
		}
		return s.blobPath(m.Layers[0].Digest)
	}
	changeIndex := func(s *Store, change func(*index)) error {
		return s.update(t.Context(), func(idx *index) error { change(idx); return nil })
	}
	writable := func(name string) string {
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, tc := range map[string]struct {
		damage  func(s *Store, img Image) error
		want    string // in what is found
		gone    bool   // the image
		garbage bool
	}{
		"a bit of a layer":      {func(s *Store, img Image) error { return flip(writable(layer(s, img))) }, "is damaged", true, false},
		"half a layer":          {func(s *Store, img Image) error { return os.Truncate(writable(layer(s, img)), 10) }, "its content has the digest", true, false},
		"a layer":               {func(s *Store, img Image) error { return os.Remove(layer(s, img)) }, "is lost", true, false},
		"the config":            {func(s *Store, img Image) error { return os.Remove(s.blobPath(img.ID)) }, "config " + "sha256:", true, false},
		"a bit of the config":   {func(s *Store, img Image) error { return flip(writable(s.blobPath(img.ID))) }, "config sha256:", true, false},
		"the manifest":          {func(s *Store, img Image) error { return os.Remove(s.blobPath(img.Manifest.Digest)) }, "manifest sha256:", true, false},
		"a bit of the manifest": {func(s *Store, img Image) error { return flip(writable(s.blobPath(img.Manifest.Digest))) }, "manifest sha256:", true, false},
		"a directory for a blob": {func(s *Store, img Image) error {
			return errors.Join(os.Remove(layer(s, img)), os.Mkdir(layer(s, img), 0o700))
		}, "can't be read", true, false},
		"the layout file": {func(s *Store, _ Image) error { return os.Remove(s.path(layoutFile)) }, "oci-layout: is lost", false, false},
		"its content":     {func(s *Store, _ Image) error { return os.WriteFile(s.path(layoutFile), nil, 0o600) }, "oci-layout: is lost", false, false},
		"an orphan": {func(s *Store, _ Image) error {
			return os.WriteFile(s.blobPath(testimage.Digest([]byte("x"))), []byte("x"), 0o600)
		}, "nothing refers to it", false, true},
		"an orphan that is wrong": {func(s *Store, _ Image) error {
			return os.WriteFile(s.blobPath(testimage.Digest([]byte("x"))), []byte("y"), 0o600)
		}, "its content has the digest", false, false},
		"no blob": {func(s *Store, _ Image) error { return os.WriteFile(s.path(blobsDir+"/readme"), nil, 0o600) }, "is no blob", false, false},
		"a staging directory": {func(s *Store, _ Image) error {
			return errors.Join(os.MkdirAll(s.path(stagingDir+"/1"), 0o700), os.WriteFile(s.path(stagingDir+"/1/lock"), nil, 0o600))
		}, "was left by", false, true},
		"half an index": {func(s *Store, _ Image) error { return os.WriteFile(s.path("."+indexFile+".tmp-1"), nil, 0o600) }, "was left by", false, true},
		"the index says another config": {func(s *Store, img Image) error {
			return changeIndex(s, func(idx *index) { idx.Manifests[0].Annotations[annotationConfig] = img.Manifest.Digest })
		}, "the index says nook.config", false, false},
		"the index says another size": {func(s *Store, _ Image) error {
			return changeIndex(s, func(idx *index) { idx.Manifests[0].Annotations[annotationSize] = "1" })
		}, "the index says nook.size", false, false},
		"a digest that is none": {func(s *Store, _ Image) error {
			return changeIndex(s, func(idx *index) { idx.Manifests[0].Digest = "sha256:../../../etc/passwd" })
		}, "is not a sha256 digest", true, false},
		"a size that is wrong": {func(s *Store, _ Image) error {
			return changeIndex(s, func(idx *index) { idx.Manifests[0].Size++ })
		}, "and should have", true, false},
		"a name twice": {func(s *Store, _ Image) error {
			return changeIndex(s, func(idx *index) { idx.Manifests = append(idx.Manifests, idx.Manifests[0]) })
		}, "its name is listed twice", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			img := loadImage(t, s, one("x:1", "x"))
			other := loadImage(t, s, one("y:1", "y"))
			if err := tc.damage(s, img); err != nil {
				t.Fatal(err)
			}
			before := files(t, s)
			found := check(t, s, false)
			if !strings.Contains(facts(found), tc.want) {
				t.Errorf("found\n%s\nwant %q", facts(found), tc.want)
			}
			for _, f := range found.Findings {
				if f.Mended != "" || f.Advice == "" || f.Garbage != tc.garbage && f.Fact != unreferenced {
					t.Errorf("got %+v, want garbage %v and advice, not mended", f, tc.garbage)
				}
			}
			if after := files(t, s); !slices.Equal(after, before) {
				t.Errorf("the check changed %q to %q", before, after)
			}
			mended := check(t, s, true)
			for _, f := range mended.Findings {
				if f.Mended == "" {
					t.Errorf("not mended: %+v", f)
				}
			}
			if left := check(t, s, false); len(left.Findings) > 0 {
				t.Errorf("found after a repair:\n%s", facts(left))
			}
			if _, err := s.Layers(other); err != nil {
				t.Errorf("the other image: %v", err)
			}
			if _, err := s.Resolve("x:1"); (err != nil) != tc.gone {
				t.Errorf("the image: %v, want it gone: %v", err, tc.gone)
			}
			// What is loaded again is whole again.
			loadImage(t, s, one("x:1", "x"))
			if left := check(t, s, false); len(left.Findings) > 0 {
				t.Errorf("found after loading it again:\n%s", facts(left))
			}
		})
	}
}

func TestCheckMakesALostIndexAgain(t *testing.T) {
	for _, broken := range []string{"", "{", `{"manifests":`} {
		s := newStore(t)
		img := loadImage(t, s, one("x:1", "x"))
		if err := os.WriteFile(s.path(indexFile), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := check(t, s, false); !strings.Contains(facts(found), "file index.json: can't be read") {
			t.Errorf("found\n%s", facts(found))
		}
		check(t, s, true)
		got, err := s.Resolve(img.ID)
		if err != nil || len(got.Names) != 0 {
			t.Errorf("got %+v, %v; want the image without a name", got, err)
		}
		if _, err := s.Layers(got); err != nil {
			t.Error(err)
		}
		data, err := os.ReadFile(s.path(indexFile))
		if err != nil || !json.Valid(data) {
			t.Errorf("%s, %v", data, err)
		}
		if left := check(t, s, false); len(left.Findings) > 0 {
			t.Errorf("found after a repair:\n%s", facts(left))
		}
	}
}
