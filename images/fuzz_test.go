package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv/testimage"
)

// seeds are small archives of every form.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	for _, form := range forms {
		for _, compression := range []string{testimage.Plain, testimage.Gzip, testimage.Zstd} {
			img := small()
			img.Compression = compression
			var b bytes.Buffer
			if err := form.write(img, &b); err != nil {
				f.Fatal(err)
			}
			out = append(out, b.Bytes())
			whole, err := testimage.Compress(compression, b.Bytes())
			if err != nil {
				f.Fatal(err)
			}
			out = append(out, whole)
		}
	}
	return out
}

// FuzzLoad feeds the readers of archives: whatever comes, either images whose
// blobs all have their digests come out or nothing is left, and nothing beside
// the store is touched.
func FuzzLoad(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		outer := t.TempDir()
		s, err := Open(filepath.Join(outer, "images"))
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(archive), Unpack: readLayers})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of more than one line: %q", err)
			}
			wantEmpty(t, s)
		}
		for _, img := range loaded {
			layers, err := s.Layers(img)
			if err != nil {
				t.Fatalf("an image was loaded that can't be read: %v", err)
			}
			if err := readLayers(t.Context(), img, layers); err != nil {
				t.Error(err)
			}
			for _, name := range img.Names {
				if _, err := ParseReference(name); err != nil {
					t.Error(err)
				}
			}
		}
		if beside, err := os.ReadDir(outer); err != nil || len(beside) != 1 {
			t.Errorf("beside the store: %v, %v", beside, err)
		}
	})
}

// readLayers stands for unpacking.
func readLayers(_ context.Context, _ Image, layers []Layer) error {
	for _, l := range layers {
		data, err := os.ReadFile(l.BlobPath)
		if err != nil {
			return err
		}
		if testimage.Digest(data) != l.Digest {
			return errors.New("a blob isn't that of its digest")
		}
	}
	return nil
}

// FuzzLayout puts foreign JSON where an archive has its own, digests mended,
// so that the fuzzer reaches what lies behind them.
func FuzzLayout(f *testing.F) {
	b := bundleOf(f, small().WriteOCI)
	var manifest, config []byte
	b.editManifest(func(m *Manifest) {
		manifest = mustJSON(f, m)
		config = b.bodies[blobsDir+"/"+hexOf(m.Config.Digest)]
	})
	f.Add(b.bodies[indexFile], manifest, config)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), []byte(`{}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, idx, manifest, config []byte) {
		checkParsers(t, idx, manifest, config)
		b := bundleOf(t, small().WriteOCI)
		b.editManifest(func(m *Manifest) { m.Config = b.blob(mediaTypeConfig, config) })
		loadAny(t, b)
		var d Descriptor
		b.editManifest(func(*Manifest) { d = b.blob(mediaTypeManifest, manifest) })
		b.set(indexFile, mustJSON(t, index{SchemaVersion: 2, Manifests: []Descriptor{d}}))
		loadAny(t, b)
		b.set(indexFile, idx)
		loadAny(t, b)
		b.remove(indexFile)
		b.set(dockerManifestFile, idx)
		loadAny(t, b)
	})
}

func checkParsers(t *testing.T, idx, manifest, config []byte) {
	t.Helper()
	if parsed, err := parseIndex(idx); err == nil {
		for _, d := range parsed.Manifests {
			if checkDescriptor(d) != nil {
				t.Errorf("index with a bad descriptor %+v", d)
			}
		}
	}
	if parsed, err := parseManifest(manifest, mediaTypeManifest); err == nil && checkDescriptor(parsed.Config) != nil {
		t.Errorf("manifest with a bad config %+v", parsed.Config)
	}
	if parsed, err := parseConfig(config); err == nil && parsed.RootFS.Type != "layers" {
		t.Errorf("config with %+v", parsed.RootFS)
	}
}

func loadAny(t *testing.T, b *bundle) {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(b.tar())}); err != nil {
		wantEmpty(t, s)
	}
	for _, img := range list(t, s) {
		if _, err := s.Inspect(img); err != nil {
			t.Errorf("an image was loaded that can't be read: %v", err)
		}
	}
}
