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

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"nook/internal/testenv/testimage"
)

// forms writes an image in each form there is, and returns what to load.
var forms = []struct {
	name  string
	write func(testimage.Image, io.Writer) error
}{
	{"docker", testimage.Image.WriteDocker},
	{"oci", testimage.Image.WriteOCI},
	{"docker25", testimage.Image.WriteBoth},
}

func TestLoadReadsEachForm(t *testing.T) {
	for _, form := range forms {
		for _, layers := range []string{testimage.Plain, testimage.Gzip, testimage.Zstd} {
			for _, whole := range []string{testimage.Plain, testimage.Gzip, testimage.Zstd} {
				t.Run(form.name+"/layers-"+layers+"/whole-"+whole, func(t *testing.T) {
					img := small()
					img.Compression = layers
					var b bytes.Buffer
					if err := form.write(img, &b); err != nil {
						t.Fatal(err)
					}
					archive, err := testimage.Compress(whole, b.Bytes())
					if err != nil {
						t.Fatal(err)
					}
					checkSmall(t, archive, layers)
				})
			}
		}
	}
}

// checkSmall loads an archive of small() from a file and from a stream.
func checkSmall(t *testing.T, archive []byte, compression string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, opts := range []LoadOptions{{Path: path}, {Input: bytes.NewReader(archive)}} {
		s := newStore(t)
		var unpacked []Layer
		opts.Unpack = func(_ context.Context, img Image, layers []Layer) error {
			unpacked = slices.Clone(layers)
			for i, l := range layers {
				data, err := os.ReadFile(l.BlobPath)
				if err != nil {
					return err
				}
				if testimage.Digest(data) != l.Digest || int64(len(data)) != l.Size {
					t.Errorf("layer %d: the blob at hand isn't that of its digest", i)
				}
				layers[i].UnpackedSize = 1000
			}
			return nil
		}
		loaded, err := s.Load(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		checkLoaded(t, s, loaded, unpacked, compression)
	}
}

func checkLoaded(t *testing.T, s *Store, loaded []Image, unpacked []Layer, compression string) {
	t.Helper()
	if len(loaded) != 1 || !slices.Equal(loaded[0].Names, []string{"docker.io/library/small:1"}) {
		t.Fatalf("got %+v, want one image small:1", loaded)
	}
	img, err := s.Resolve("small:1")
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != loaded[0].ID || img.UnpackedSize != 2000 {
		t.Errorf("resolved %+v, want the loaded %+v with 2000 unpacked bytes", img, loaded[0])
	}
	cfg, err := s.Config(img)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Config.User != "1000" || !slices.Equal(cfg.Config.Cmd, []string{"sh"}) {
		t.Errorf("got config %+v", cfg.Config)
	}
	layers, err := s.Layers(img)
	if err != nil {
		t.Fatal(err)
	}
	wantType := strings.TrimSuffix(mediaTypeLayer+"+"+compression, "+")
	var size int64
	for i, l := range layers {
		size += l.Size
		if l.MediaType != wantType {
			t.Errorf("layer %d: got media type %q, want %q", i, l.MediaType, wantType)
		}
		if l.Digest != unpacked[i].Digest || l.DiffID != cfg.RootFS.DiffIDs[i] {
			t.Errorf("layer %d: %+v is not what was unpacked, %+v", i, l, unpacked[i])
		}
		if data, err := os.ReadFile(l.BlobPath); err != nil || testimage.Digest(data) != l.Digest {
			t.Errorf("layer %d: blob in the store: %v", i, err)
		}
	}
	if img.Size != size {
		t.Errorf("got size %d, want %d", img.Size, size)
	}
	if got := files(t, s); len(got) != 2+2+len(layers) {
		t.Errorf("the store holds %q, want index, layout, manifest, config and %d layers", got, len(layers))
	}
}

func TestLoadReadsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	if err := small().WriteOCIDir(dir); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	if _, err := s.Load(t.Context(), LoadOptions{Path: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("small:1"); err != nil {
		t.Error(err)
	}
}

// Docker before 25 wrote a layer that two images share, or that occurs twice,
// as a symlink to the first.
func TestLoadFollowsLinksBetweenLayers(t *testing.T) {
	for _, typeflag := range []byte{tar.TypeSymlink, tar.TypeLink} {
		b := bundleOf(t, one("x:1", "body").WriteDocker)
		var entries []dockerEntry
		b.edit(dockerManifestFile, &entries, func() {
			target := entries[0].Layers[0]
			link := "../" + target
			if typeflag == tar.TypeLink {
				link = target
			}
			b.add(&tar.Header{Typeflag: typeflag, Name: "other/layer.tar", Linkname: link}, nil)
			entries[0].Layers[0] = "./other/layer.tar"
		})
		s := newStore(t)
		load(t, s, b.tar())
		if _, err := s.Resolve("x:1"); err != nil {
			t.Errorf("typeflag %q: %v", typeflag, err)
		}
	}
}

func TestLoadNames(t *testing.T) {
	for _, test := range []struct {
		name, refName, containerd, file string
		want                            []string
	}{
		{"full", "quay.io/a/b:1", "", "x.tar", []string{"quay.io/a/b:1"}},
		{"short", "a:1", "", "x.tar", []string{"docker.io/library/a:1"}},
		{"a bare tag goes behind the file's name", "1.36", "", "BusyBox.tar", []string{"docker.io/library/busybox:1.36"}},
		{"latest", "latest", "", "busybox.tar.gz", []string{"docker.io/library/busybox:latest"}},
		{"containerd's name goes first", "1", "docker.io/library/y:1", "x.tar", []string{"docker.io/library/y:1"}},
		{"a file name that can't be an image's", "latest", "", "__.tar", nil},
		{"no name", "", "", "busybox.tar", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := bundleOf(t, one("x:1", "body").WriteOCI)
			var idx index
			b.edit(indexFile, &idx, func() {
				idx.Manifests[0].Annotations = map[string]string{
					annotationRefName: test.refName, annotationContainerdName: test.containerd,
				}
			})
			path := filepath.Join(t.TempDir(), test.file)
			if err := os.WriteFile(path, b.tar(), 0o600); err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			loaded, err := s.Load(t.Context(), LoadOptions{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(loaded[0].Names, test.want) || !slices.Equal(list(t, s)[0].Names, test.want) {
				t.Errorf("got %q, and %q in the store, want %q", loaded[0].Names, list(t, s)[0].Names, test.want)
			}
			if got := load(t, newStore(t), b.tar())[0].Names; !strings.ContainsAny(test.refName, ":") && test.containerd == "" && got != nil {
				t.Errorf("from a stream: got %q, want no name", got)
			}
		})
	}
}

// docker 25 writes only the tag into ref.name where it has no containerd.
func TestLoadTakesNamesOfManifestJSONBesideLayout(t *testing.T) {
	b := bundleOf(t, small().WriteBoth)
	var idx index
	b.edit(indexFile, &idx, func() { idx.Manifests[0].Annotations = nil })
	if got, want := load(t, newStore(t), b.tar())[0].Names, []string{"docker.io/library/small:1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoadMovesNames(t *testing.T) {
	s := newStore(t)
	old := loadImage(t, s, one("x:1", "old"))
	loadImage(t, s, one("x:1", "new"))
	if img, err := s.Resolve("x:1"); err != nil || img.ID == old.ID {
		t.Errorf("x:1 is %v, %v; want the new image", img, err)
	}
	if img, err := s.Resolve(old.ID); err != nil || len(img.Names) != 0 {
		t.Errorf("the old image is %v, %v; want it without a name", img, err)
	}
	loadImage(t, s, one("x:1", "old"))
	if got := list(t, s); len(got) != 2 || len(got[0].Names)+len(got[1].Names) != 1 {
		t.Errorf("got %+v, want two images and one name", got)
	}
}

func TestLoadPicksPlatform(t *testing.T) {
	host := HostPlatform().Architecture
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[host]
	multi := func(nested bool, archs ...string) []byte {
		out := &bundle{t: t, bodies: make(map[string][]byte)}
		inner := index{SchemaVersion: 2, MediaType: mediaTypeIndex}
		for _, arch := range archs {
			img := one("m:1", "for "+arch)
			img.Architecture = arch
			b := bundleOf(t, img.WriteOCI)
			for name, body := range b.bodies {
				out.set(name, body)
			}
			var idx index
			b.edit(indexFile, &idx, func() {
				d := idx.Manifests[0]
				d.Platform = &Platform{OS: "linux", Architecture: arch}
				inner.Manifests = append(inner.Manifests, d)
			})
		}
		inner.Manifests = append(inner.Manifests, Descriptor{
			MediaType: mediaTypeManifest, Digest: someDigest, Size: 5,
			Platform:    &Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{annotationReferenceType: "attestation-manifest"},
		})
		if nested {
			d := out.blob(mediaTypeIndex, mustJSON(t, inner))
			d.Annotations = map[string]string{annotationRefName: "m:1"}
			inner = index{SchemaVersion: 2, Manifests: []Descriptor{d}}
		}
		out.set(indexFile, mustJSON(t, inner))
		return out.tar()
	}
	for _, nested := range []bool{false, true} {
		s := newStore(t)
		loaded := load(t, s, multi(nested, "s390x", host, other))
		cfg, err := s.Config(loaded[0])
		if err != nil || len(loaded) != 1 {
			t.Fatal(loaded, err)
		}
		if cfg.Architecture != host {
			t.Errorf("nested %v: got an image for %s, want %s", nested, cfg.Architecture, host)
		}
		loaded, err = s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(multi(nested, host, other)), Platform: "linux/" + other})
		if err != nil || len(loaded) != 1 || loaded[0].Manifest.Platform.Architecture != other {
			t.Errorf("nested %v: asked for %s: got %+v, %v", nested, other, loaded, err)
		}
		s = newStore(t)
		_, err = s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(multi(nested, "s390x", "riscv64"))})
		wantError(t, err, "wrong platform: there is no image for linux/"+host+" in it, only for linux/s390x, linux/riscv64", "--override-arch "+host)
		wantEmpty(t, s)
	}
	// One that is for a single platform is taken: run will say what is wrong.
	img := one("m:1", "x")
	img.Architecture = "s390x"
	cfg, err := func() (*ImageConfig, error) { s := newStore(t); return s.Config(loadImage(t, s, img)) }()
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckPlatform(cfg); !emulated("s390x") {
		wantError(t, err, "the image is for linux/s390x, this host is linux/"+host, "qemu-user-static")
	}
	_, err = newStore(t).Load(t.Context(), LoadOptions{Input: bytes.NewReader(bundleOf(t, img.WriteOCI).tar()), Platform: "linux/" + host})
	wantError(t, err, "only for linux/s390x", "")
	_, err = newStore(t).Load(t.Context(), LoadOptions{Input: bytes.NewReader(bundleOf(t, img.WriteDocker).tar()), Platform: "linux/" + host})
	wantError(t, err, "only for linux/s390x", "")
}

func TestLoadFailedUnpackLeavesNothing(t *testing.T) {
	s := newStore(t)
	boom := errors.New("boom")
	_, err := s.Load(t.Context(), LoadOptions{
		Input:  bytes.NewReader(bundleOf(t, small().WriteOCI).tar()),
		Unpack: func(context.Context, Image, []Layer) error { return boom },
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v, want boom", err)
	}
	wantEmpty(t, s)
}

func TestLoadCancelled(t *testing.T) {
	// A stream that gives half an archive and then nothing, as a terminal.
	archive := bundleOf(t, small().WriteOCI).tar()
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = w.Write(archive[:len(archive)/2])
		cancel()
	}()
	s := newStore(t)
	if _, err := s.Load(ctx, LoadOptions{Input: r}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	wantEmpty(t, s)
}

// The index and the manifest that nook writes are read with the
// specification's own Go structures.
func TestLoadWritesWhatImageSpecReads(t *testing.T) {
	s := newStore(t)
	load(t, s, bundleOf(t, small().WriteDocker).tar())
	data, err := os.ReadFile(s.path(indexFile))
	if err != nil {
		t.Fatal(err)
	}
	var idx specs.Index
	if err := json.Unmarshal(data, &idx); err != nil {
		t.Fatal(err)
	}
	d := idx.Manifests[0]
	if idx.SchemaVersion != 2 || d.MediaType != specs.MediaTypeImageManifest || d.Annotations[specs.AnnotationRefName] != "docker.io/library/small:1" {
		t.Errorf("got index %+v", idx)
	}
	if data, err = os.ReadFile(filepath.Join(s.dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	var m specs.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if m.Config.MediaType != specs.MediaTypeImageConfig || len(m.Layers) != 2 || m.Layers[0].MediaType != specs.MediaTypeImageLayer {
		t.Errorf("got manifest %+v", m)
	}
}

func TestLoadProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	archive := bundleOf(t, small().WriteOCI).tar()
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	var read, total int64
	ended := 0
	_, err := newStore(t).Load(t.Context(), LoadOptions{Path: path, Progress: func(_ string, n int64) (func(int64), func()) {
		total = n
		return func(n int64) { read += n }, func() { ended++ }
	}})
	if err != nil {
		t.Fatal(err)
	}
	if read != int64(len(archive)) || total != read || ended != 1 {
		t.Errorf("got %d of %d bytes and %d ends, want %d, the same, and 1", read, total, ended, len(archive))
	}
}
