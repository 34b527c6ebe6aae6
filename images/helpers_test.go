package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nook/internal/hint"
	"nook/internal/testenv/testimage"
)

// small is an image with two layers, the upper one with a whiteout.
func small() testimage.Image {
	return testimage.Image{
		Name: "small:1",
		Layers: []testimage.Layer{
			{Entries: []testimage.Entry{testimage.Dir("etc", 0o755), testimage.File("etc/motd", 0o644, "hello")}},
			{Entries: []testimage.Entry{testimage.File("etc/.wh.motd", 0o644, "")}},
		},
		Config: testimage.Config{Cmd: []string{"sh"}, Env: []string{"A=1"}, User: "1000"},
	}
}

// one is an image with one layer that holds body.
func one(name, body string) testimage.Image {
	return testimage.Image{Name: name, Layers: []testimage.Layer{
		{Entries: []testimage.Entry{testimage.File("file", 0o644, body)}},
	}}
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bundle is the files of an archive, to be changed and written again.
type bundle struct {
	t       testing.TB
	headers []*tar.Header
	bodies  map[string][]byte
}

func bundleOf(t testing.TB, write func(io.Writer) error) *bundle {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return readBundle(t, &b)
}

func readBundle(t testing.TB, r io.Reader) *bundle {
	t.Helper()
	out := &bundle{t: t, bodies: make(map[string][]byte)}
	for tr := tar.NewReader(r); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out.add(header, body)
	}
}

func (b *bundle) add(header *tar.Header, body []byte) {
	b.headers = append(b.headers, header)
	b.bodies[header.Name] = body
}

func (b *bundle) set(name string, body []byte) {
	if _, found := b.bodies[name]; !found {
		b.headers = append(b.headers, &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644})
	}
	b.bodies[name] = body
}

func (b *bundle) remove(name string) {
	b.headers = slices.DeleteFunc(b.headers, func(h *tar.Header) bool { return h.Name == name })
	delete(b.bodies, name)
}

// blob adds a blob under its digest and describes it.
func (b *bundle) blob(mediaType string, body []byte) Descriptor {
	d := Descriptor{MediaType: mediaType, Digest: testimage.Digest(body), Size: int64(len(body))}
	b.set(blobsDir+"/"+hexOf(d.Digest), body)
	return d
}

func (b *bundle) tar() []byte {
	b.t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, header := range b.headers {
		h := *header
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(b.bodies[h.Name]))
		}
		if err := w.WriteHeader(&h); err != nil {
			b.t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(b.bodies[h.Name]); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		b.t.Fatal(err)
	}
	return out.Bytes()
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// edit changes a JSON file of the bundle.
func (b *bundle) edit(name string, v any, change func()) {
	b.t.Helper()
	if err := json.Unmarshal(b.bodies[name], v); err != nil {
		b.t.Fatal(err)
	}
	change()
	b.set(name, mustJSON(b.t, v))
}

// editManifest changes the manifest of an OCI archive and mends its digest.
func (b *bundle) editManifest(change func(m *Manifest)) {
	b.t.Helper()
	var idx index
	b.edit(indexFile, &idx, func() {
		var m Manifest
		if err := json.Unmarshal(b.bodies[blobsDir+"/"+hexOf(idx.Manifests[0].Digest)], &m); err != nil {
			b.t.Fatal(err)
		}
		change(&m)
		d := b.blob(idx.Manifests[0].MediaType, mustJSON(b.t, m))
		idx.Manifests[0].Digest, idx.Manifests[0].Size = d.Digest, d.Size
	})
}

// editConfig changes the config of an OCI archive and mends all digests.
func (b *bundle) editConfig(change func(cfg *ImageConfig)) {
	b.t.Helper()
	b.editManifest(func(m *Manifest) {
		var cfg ImageConfig
		if err := json.Unmarshal(b.bodies[blobsDir+"/"+hexOf(m.Config.Digest)], &cfg); err != nil {
			b.t.Fatal(err)
		}
		change(&cfg)
		m.Config = b.blob(m.Config.MediaType, mustJSON(b.t, cfg))
	})
}

func load(t testing.TB, s *Store, archive []byte) []Image {
	t.Helper()
	list, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(archive)})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func loadImage(t testing.TB, s *Store, img testimage.Image) Image {
	t.Helper()
	return load(t, s, bundleOf(t, img.WriteOCI).tar())[0]
}

func list(t testing.TB, s *Store) []Image {
	t.Helper()
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// files lists what is in a store, apart from the lock.
func files(t testing.TB, s *Store) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != lockFile && d.Name() != ballastFile {
			if name, _ := filepath.Rel(s.dir, path); !strings.HasPrefix(name, ".unsynced/") {
				names = append(names, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// wantEmpty fails when anything is left of what was refused.
func wantEmpty(t testing.TB, s *Store) {
	t.Helper()
	if got, want := files(t, s), []string{indexFile, layoutFile}; !slices.Equal(got, want) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
	if left, _ := os.ReadDir(s.path(stagingDir)); len(left) > 0 {
		t.Errorf("staging directory left: %v", left)
	}
}

// wantError compares an error's text and wants a hint with it.
func wantError(t testing.TB, err error, text, advice string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %q", text)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("got error %q, want %q in it", err, text)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q has more than one line", err)
	}
	if got := hint.Of(err); !strings.Contains(got, advice) {
		t.Errorf("got hint %q, want %q in it", got, advice)
	}
}
