package images

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/images/registry"
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

// lone is a Remote in memory that has what the fuzzer says, under any name.
type lone struct {
	documents []registry.Manifest
	blobs     map[string][]byte
}

func (l *lone) Manifest(_ context.Context, reference string, _ []string) (registry.Manifest, error) {
	for _, m := range l.documents {
		if m.Digest == reference || !strings.Contains(reference, ":") {
			return m, nil
		}
	}
	return registry.Manifest{}, registry.ErrNotFound
}

func (l *lone) Blob(_ context.Context, digest string, size, offset int64, w io.Writer) error {
	data, found := l.blobs[digest]
	if !found {
		return registry.ErrNotFound
	}
	if int64(len(data)) < size || offset > size {
		return registry.ErrSize
	}
	_, err := w.Write(data[offset:size])
	return err
}

// FuzzPull pulls what the fuzzer says is an index, a manifest, a config and a
// layer: an image that can be read comes out, or nothing.
func FuzzPull(f *testing.F) {
	img := small()
	b := bundleOf(f, img.WriteOCI)
	var idx, manifest, config, layer []byte
	b.editManifest(func(m *Manifest) {
		manifest = mustJSON(f, m)
		config = b.bodies[blobsDir+"/"+hexOf(m.Config.Digest)]
		layer = b.bodies[blobsDir+"/"+hexOf(m.Layers[0].Digest)]
		idx = mustJSON(f, index{SchemaVersion: 2, Manifests: []Descriptor{{
			MediaType: mediaTypeManifest, Digest: digestOf(manifest), Size: int64(len(manifest)), Platform: &Platform{OS: "linux", Architecture: "amd64"},
		}}})
	})
	f.Add(mediaTypeIndex, idx, manifest, config, layer)
	f.Add(mediaTypeManifest, manifest, manifest, config, layer)
	f.Add(mediaTypeDockerList, []byte(`{"schemaVersion":2,"manifests":[{}]}`), manifest, []byte("null"), []byte{})
	f.Add("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte("{}"), []byte("{}"), []byte("{}"), layer)
	ref, err := ParseReference("registry.test/app:1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, mediaType string, top, manifest, config, layer []byte) {
		from := &lone{blobs: map[string][]byte{digestOf(config): config, digestOf(layer): layer}}
		from.documents = append(from.documents, registry.Manifest{MediaType: mediaType, Digest: digestOf(top), Body: top})
		from.documents = append(from.documents, registry.Manifest{MediaType: mediaTypeManifest, Digest: digestOf(manifest), Body: manifest})
		s, err := Open(filepath.Join(t.TempDir(), "images"))
		if err != nil {
			t.Fatal(err)
		}
		pulled, err := s.Pull(t.Context(), from, ref, PullOptions{})
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 2000 {
				t.Errorf("error %q", err)
			}
			if got := list(t, s); len(got) != 0 {
				t.Errorf("after an error there is %+v", got)
			}
			if left, _ := os.ReadDir(s.path(stagingDir)); len(left) != 0 {
				t.Errorf("left in staging: %v", left)
			}
			return
		}
		if _, err := s.Inspect(pulled.Image); err != nil {
			t.Errorf("an image was pulled that can't be read: %v", err)
		}
		if found, err := s.Check(t.Context(), CheckOptions{}); err != nil || len(found.Findings) > 0 {
			t.Errorf("the store isn't whole: %s, %v", facts(found), err)
		}
	})
}

// FuzzManifest reads what a registry or an archive says is a manifest: what is
// taken has digests that are file names and nothing else, and sizes that a
// file can have.
func FuzzManifest(f *testing.F) {
	b := bundleOf(f, small().WriteOCI)
	b.editManifest(func(m *Manifest) { f.Add(mustJSON(f, m), mediaTypeManifest) })
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"`+mediaTypeDockerConfig+`","digest":"sha256:../x"}}`), mediaTypeDockerManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), mediaTypeManifest)
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "application/vnd.docker.distribution.manifest.v1+json")
	f.Fuzz(func(t *testing.T, body []byte, mediaType string) {
		m, err := parseManifest(body, mediaType)
		if err != nil {
			return
		}
		for _, d := range append([]Descriptor{m.Config}, m.Layers...) {
			name := hexOf(d.Digest)
			if len(name) != 64 || strings.Trim(name, "0123456789abcdef") != "" || d.Size < 0 {
				t.Errorf("a descriptor %+v", d)
			}
		}
		if again, err := parseManifest(mustJSON(t, m), mediaType); err != nil || len(again.Layers) != len(m.Layers) {
			t.Errorf("what was taken is refused when it is written: %v", err)
		}
	})
}

// FuzzImageConfig reads what an image says of itself.
func FuzzImageConfig(f *testing.F) {
	b := bundleOf(f, small().WriteOCI)
	b.editManifest(func(m *Manifest) { f.Add(b.bodies[blobsDir+"/"+hexOf(m.Config.Digest)]) })
	f.Add([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`))
	f.Add([]byte(`{"created":"0000-00-00T00:00:00Z","config":{"Healthcheck":{"Interval":1e30},"Env":null}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseConfig(body)
		if err != nil {
			return
		}
		for _, id := range c.RootFS.DiffIDs {
			if checkDigest(id) != nil {
				t.Errorf("a diff id %q", id)
			}
		}
		if err := CheckPlatform(c); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error %q", err)
		}
		if _, err := parseConfig(mustJSON(t, c)); err != nil {
			t.Errorf("what was taken is refused when it is written: %v", err)
		}
	})
}
