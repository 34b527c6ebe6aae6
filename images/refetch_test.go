package images

import (
	"errors"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"nook/internal/testenv/testregistry"
)

// repairFrom repairs a store that may ask the registry.
func (r *remote) repairFrom(t *testing.T, s *Store) Checked {
	t.Helper()
	got, err := s.Check(t.Context(), CheckOptions{Repair: true, From: func(ref Reference) (Remote, error) {
		return r.client.Repository(ref.Registry, ref.Path)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestRepairFetchesAgain: whatever blob of a pulled image is lost or damaged
// comes from its registry, and from the repository it was pulled from, whatever
// the image is called by now.
func TestRepairFetchesAgain(t *testing.T) {
	r := newRemote(t)
	own := one("own:1", "own")
	digest := r.image(t, "app", "", own)
	r.AddIndex("app", "1", testregistry.Entry{Digest: digest, OS: "linux", Arch: runtime.GOARCH})
	lost := os.Remove
	for name, damage := range map[string]func(string) error{
		"lost": lost,
		"a bit": func(name string) error {
			return errors.Join(os.Chmod(name, 0o600), flip(name))
		},
		"half of it": func(name string) error {
			return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 1))
		},
		"a directory": func(name string) error { return errors.Join(os.Remove(name), os.MkdirAll(name+"/x", 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			img := r.mustPull(t, s, "app:1").Image
			if err := s.Tag(t.Context(), r.host+"/app:1", "mine:1"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Remove(t.Context(), r.host+"/app:1", RemoveOptions{}); err != nil {
				t.Fatal(err)
			}
			m, err := s.Manifest(img)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{img.Manifest.Digest, img.ID, m.Layers[0].Digest} {
				if err := damage(s.blobPath(d)); err != nil {
					t.Fatal(err)
				}
			}
			got := r.repairFrom(t, s)
			if n := strings.Count(facts(got), "[fetched again from "+r.host+"/app]"); n != 3 || len(got.Findings) != 3 {
				t.Errorf("%d fetched again, want 3, in\n%s", n, facts(got))
			}
			if after := check(t, s, false); len(after.Findings) != 0 {
				t.Errorf("after a repair: %s", facts(after))
			}
			if _, err := s.Resolve("mine:1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRepairKeepsWhatItCannotFetch: an image stays while its registry is away,
// and goes when that doesn't have it either.
func TestRepairKeepsWhatItCannotFetch(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lie   func(http.ResponseWriter, *http.Request)
		want  string
		stays bool
	}{
		{"it is closed", func(w http.ResponseWriter, _ *http.Request) {
			testregistry.Fail(w, http.StatusForbidden, "DENIED", "not today")
		}, "is lost []", true},
		{"it lies", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "7")
			_, _ = w.Write([]byte("garbage"))
		}, "is lost []", true},
		{"it is gone", func(w http.ResponseWriter, _ *http.Request) {
			testregistry.Fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown")
		}, "is lost [removed: load or pull it again]", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, s := newRemote(t), newStore(t)
			r.image(t, "app", "1", one("x:1", "x"))
			img := r.mustPull(t, s, "app:1").Image
			m, err := s.Manifest(img)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(s.blobPath(m.Layers[0].Digest)); err != nil {
				t.Fatal(err)
			}
			r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
				tc.lie(w, req)
				return true
			}
			got := r.repairFrom(t, s)
			if !strings.Contains(facts(got), tc.want) {
				t.Errorf("found %s, want %q", facts(got), tc.want)
			}
			if tc.stays && !strings.Contains(got.Findings[0].Advice, "could not be fetched again") {
				t.Errorf("advice %q", got.Findings[0].Advice)
			}
			if _, err := s.Resolve(r.host + "/app:1"); (err == nil) != tc.stays {
				t.Errorf("the image: %v", err)
			}
			r.Lie = nil
			if !tc.stays {
				return
			}
			if got := r.repairFrom(t, s); !strings.Contains(facts(got), "fetched again") {
				t.Errorf("once it is back: %s", facts(got))
			}
		})
	}
}

// What a registry sends for a lost blob is held to its digest.
func TestRepairBelievesNoRegistry(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "app", "1", one("x:1", "x"))
	img := r.mustPull(t, s, "app:1").Image
	m, err := s.Manifest(img)
	if err != nil {
		t.Fatal(err)
	}
	layer := m.Layers[0]
	if err := os.Remove(s.blobPath(layer.Digest)); err != nil {
		t.Fatal(err)
	}
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.Contains(req.URL.Path, "/blobs/") {
			return false
		}
		testregistry.SendBlob(w, req, make([]byte, layer.Size))
		return true
	}
	got := r.repairFrom(t, s)
	if len(got.Findings) != 1 || got.Findings[0].Mended != "" || !strings.Contains(got.Findings[0].Advice, ErrDigest.Error()) {
		t.Errorf("found %+v", got.Findings)
	}
	if _, err := os.Lstat(s.blobPath(layer.Digest)); !os.IsNotExist(err) {
		t.Errorf("a wrong blob was kept: %v", err)
	}
	if entries, _ := os.ReadDir(s.path(stagingDir)); len(entries) != 0 {
		t.Errorf("left in staging: %v", entries)
	}
}
