package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// What isn't an archive at all.
func TestLoadRefusesForeignFiles(t *testing.T) {
	rootfs, err := small().Layers[0].Tar()
	if err != nil {
		t.Fatal(err)
	}
	gzipped := func(data string) string {
		b, err := testimage.Compress(testimage.Gzip, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	empty := string(make([]byte, 10240))
	for _, test := range []struct {
		name, content, want, advice string
		err                         error
	}{
		{"empty", "", "not an image archive but an empty file", "nook load reads", ErrNotArchive},
		{"text", "FROM debian\n", "not an image archive but a text file", "nook load reads", ErrNotArchive},
		{"html", "\n<!DOCTYPE html>" + strings.Repeat("x", 600), "but an HTML or XML page", "nook load reads", ErrNotArchive},
		{"json", `{"errors":[]}`, "but a JSON text", "nook load reads", ErrNotArchive},
		{"zip", "PK\x03\x04" + empty, "but a zip archive", "nook load reads", ErrNotArchive},
		{"elf", "\x7fELF" + empty, "but an ELF executable", "nook load reads", ErrNotArchive},
		{"xz", "\xfd7zXZ\x00" + empty, "but compressed with xz", "xz -dc FILE | nook load", ErrNotArchive},
		{"bzip2", "BZh9" + empty, "but compressed with bzip2", "bzip2 -dc FILE | nook load", ErrNotArchive},
		{"noise", strings.Repeat("\x01\xff\x00\x80", 500), ": not an image archive", "nook load reads", ErrNotArchive},
		{"gzipped text", gzipped("FROM debian\n"), "but a text file", "nook load reads", ErrNotArchive},
		{"empty tar", empty, "it has no manifest.json and no index.json", "nook import", ErrNotArchive},
		{"rootfs", string(rootfs), "it has no manifest.json and no index.json", "nook import", ErrNotArchive},
		{"gzip header alone", "\x1f\x8b", "cut short", "download it again", ErrTruncated},
		{"zstd header alone", "\x28\xb5\x2f\xfd", "cut short", "download it again", ErrTruncated},
		{"broken gzip", "\x1f\x8b" + empty, "the archive is damaged", "download it again", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.tar")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			s := newStore(t)
			_, err := s.Load(t.Context(), LoadOptions{Path: path})
			wantError(t, err, test.want, test.advice)
			if test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("got %v, want it to be %v", err, test.err)
			}
			if !strings.HasPrefix(err.Error(), "load "+path+": ") || strings.Count(err.Error(), path) != 1 {
				t.Errorf("error %q doesn't name the file once, at its beginning", err)
			}
			wantEmpty(t, s)
		})
	}
}

func TestLoadRefusesMissingPaths(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t)
	_, err := s.Load(t.Context(), LoadOptions{Path: filepath.Join(dir, "none.tar")})
	if want := "load " + dir + "/none.tar: no such file or directory"; err == nil || err.Error() != want || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %q", err, want)
	}
	_, err = s.Load(t.Context(), LoadOptions{Path: dir})
	wantError(t, err, "the directory has no index.json", "nook import")
	wantEmpty(t, s)
}

// Each archive is cut at every place that differs: in the middle of an entry,
// in a header, between entries.
func TestLoadRefusesTruncated(t *testing.T) {
	s := newStore(t)
	for _, form := range forms {
		for _, whole := range []string{testimage.Plain, testimage.Gzip, testimage.Zstd} {
			var b bytes.Buffer
			if err := form.write(small(), &b); err != nil {
				t.Fatal(err)
			}
			archive, err := testimage.Compress(whole, b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			// tar's own end mark, two blocks of zeros, may be missing.
			end := len(archive) - 1
			if whole == testimage.Plain {
				end = len(archive) - 1024 - 512
			}
			for at := 1; at < end; at += 1 + end/40 {
				_, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(archive[:at])})
				if err == nil {
					t.Fatalf("%s, %q: cut at %d of %d: got no error", form.name, whole, at, len(archive))
				}
				if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrNotArchive) && !strings.Contains(err.Error(), "the archive lacks") {
					t.Errorf("%s, %q: cut at %d of %d: got %v", form.name, whole, at, len(archive), err)
				}
				wantEmpty(t, s)
			}
		}
	}
}

// What is a layout, with something wrong in it.
func TestLoadRefusesBadLayouts(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(b *bundle)
		want   string
		err    error
	}{
		{"a layer's content", func(b *bundle) {
			b.editManifest(func(m *Manifest) { b.bodies[blobsDir+"/"+hexOf(m.Layers[1].Digest)][600]++ })
		}, "and should have sha256:", ErrDigest},
		{"the config's content", func(b *bundle) {
			b.editManifest(func(m *Manifest) { b.set(blobsDir+"/"+hexOf(m.Config.Digest), []byte(`{"rootfs":{"type":"layers"}}`)) })
		}, "config: the content does not match: it has digest sha256:", ErrDigest},
		{"the manifest's content", func(b *bundle) {
			var idx index
			b.edit(indexFile, &idx, func() { b.set(blobsDir+"/"+hexOf(idx.Manifests[0].Digest), []byte(`{}`)) })
		}, "manifest: the content does not match: it has digest sha256:", ErrDigest},
		{"a layer's size", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.Layers[0].Size++ })
		}, "bytes and should have", ErrDigest},
		{"a layer too many to stack", func(b *bundle) {
			b.editManifest(func(m *Manifest) {
				for len(m.Layers) <= maxLayers {
					m.Layers = append(m.Layers, m.Layers[0])
				}
			})
		}, "the image has 501 layers, more than the 500 that overlayfs stacks", nil},
		{"a negative size", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.Layers[0].Size = -1 })
		}, "size -1", ErrDigest},
		{"a layer is missing", func(b *bundle) {
			b.editManifest(func(m *Manifest) { b.remove(blobsDir + "/" + hexOf(m.Layers[1].Digest)) })
		}, "the archive lacks layer 2 sha256:", nil},
		{"the manifest is missing", func(b *bundle) {
			var idx index
			b.edit(indexFile, &idx, func() { b.remove(blobsDir + "/" + hexOf(idx.Manifests[0].Digest)) })
		}, "the archive lacks manifest sha256:", nil},
		{"the config is missing", func(b *bundle) {
			b.editManifest(func(m *Manifest) { b.remove(blobsDir + "/" + hexOf(m.Config.Digest)) })
		}, "the archive lacks config sha256:", nil},
		{"fewer diff ids than layers", func(b *bundle) {
			b.editConfig(func(cfg *ImageConfig) { cfg.RootFS.DiffIDs = cfg.RootFS.DiffIDs[:1] })
		}, "the manifest has 2 layers, the config 1 diff ids", ErrDigest},
		{"another diff id", func(b *bundle) {
			b.editConfig(func(cfg *ImageConfig) { cfg.RootFS.DiffIDs[1] = someDigest })
		}, "the config says diff id " + someDigest, ErrDigest},
		{"a diff id that is a path", func(b *bundle) {
			b.editConfig(func(cfg *ImageConfig) { cfg.RootFS.DiffIDs[0] = "sha256:../../../../etc/passwd" })
		}, `"sha256:../../../../etc/passwd" is not a sha256 digest`, nil},
		{"a digest that is a path", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.Layers[0].Digest = "../../x" })
		}, `"../../x" is not a sha256 digest`, nil},
		{"sha512", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.Layers[0].Digest = "sha512:" + strings.Repeat("0", 128) })
		}, `is not a sha256 digest`, nil},
		{"an unknown layer type", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.Layers[1].MediaType = "application/vnd.example.layer.tar+br" })
		}, `unknown media type: layer 2: "application/vnd.example.layer.tar+br"`, ErrMediaType},
		{"a foreign layer", func(b *bundle) {
			b.editManifest(func(m *Manifest) {
				m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
			})
		}, `layer 1: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"`, ErrMediaType},
		{"an artifact", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" })
		}, `config "application/vnd.cncf.helm.config.v1+json": this is no container image`, ErrMediaType},
		{"schema version 1", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.SchemaVersion = 1 })
		}, "manifest of schema version 1", ErrMediaType},
		{"a manifest that says it is an index", func(b *bundle) {
			b.editManifest(func(m *Manifest) { m.MediaType = mediaTypeIndex })
		}, "what refers to it says", ErrMediaType},
		{"a layout of version 2", func(b *bundle) { b.set(layoutFile, []byte(`{"imageLayoutVersion":"2.0.0"}`)) },
			`OCI layout of version "2.0.0"`, ErrMediaType},
		{"an index of another kind", func(b *bundle) { b.set(indexFile, []byte(`{"schemaVersion":2,"mediaType":"x/y"}`)) },
			`image index "x/y"`, ErrMediaType},
		{"an index without images", func(b *bundle) { b.set(indexFile, []byte(`{"schemaVersion":2,"manifests":[]}`)) },
			"it lists no image", ErrNotArchive},
		{"an index that is no JSON", func(b *bundle) { b.set(indexFile, []byte(`<html>`)) }, "read image index: invalid character", nil},
		{"a huge index", func(b *bundle) { b.set(indexFile, bytes.Repeat([]byte{' '}, maxJSON+1)) }, "index.json: is larger than 8 MiB", nil},
		{"a bad name", func(b *bundle) {
			var idx index
			b.edit(indexFile, &idx, func() { idx.Manifests[0].Annotations[annotationRefName] = "Bad Name:1" })
		}, `image name "Bad Name:1": `, nil},
		{"indexes all the way down", func(b *bundle) {
			d := Descriptor{MediaType: mediaTypeManifest, Digest: someDigest}
			for range maxIndexDepth + 2 {
				d = b.blob(mediaTypeIndex, mustJSON(t, index{SchemaVersion: 2, Manifests: []Descriptor{d}}))
			}
			b.set(indexFile, mustJSON(t, index{SchemaVersion: 2, Manifests: []Descriptor{d}}))
		}, "image indexes nest deeper than 4", nil},
		{"too many images", func(b *bundle) {
			var idx index
			b.edit(indexFile, &idx, func() {
				for i := range maxImages + 1 {
					d := idx.Manifests[0]
					d.Annotations = map[string]string{annotationRefName: fmt.Sprintf("x:%d", i)}
					idx.Manifests = append(idx.Manifests, d)
				}
			})
		}, "more than 1000 images", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := bundleOf(t, small().WriteOCI)
			test.change(b)
			s := newStore(t)
			_, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(b.tar())})
			wantError(t, err, test.want, "")
			if !strings.HasPrefix(err.Error(), "load standard input: ") {
				t.Errorf("error %q doesn't begin with what was loaded", err)
			}
			if test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("got %v, want it to be %v", err, test.err)
			}
			wantEmpty(t, s)
		})
	}
}

func TestLoadRefusesManifestThatIsAnIndexToo(t *testing.T) {
	b := bundleOf(t, small().WriteOCI)
	var idx index
	b.edit(indexFile, &idx, func() {
		body := b.bodies[blobsDir+"/"+hexOf(idx.Manifests[0].Digest)]
		d := b.blob(mediaTypeManifest, append([]byte(`{"manifests":[],`), body[1:]...))
		idx.Manifests[0] = d
	})
	_, err := newStore(t).Load(t.Context(), LoadOptions{Input: bytes.NewReader(b.tar())})
	wantError(t, err, "the manifest is an index as well", "")
}

// What is a docker archive, with something wrong in it.
func TestLoadRefusesBadDockerArchives(t *testing.T) {
	edit := func(change func(b *bundle, entry *dockerEntry)) func(b *bundle) {
		return func(b *bundle) {
			var entries []dockerEntry
			b.edit(dockerManifestFile, &entries, func() { change(b, &entries[0]) })
		}
	}
	for _, test := range []struct {
		name   string
		change func(b *bundle)
		want   string
		err    error
	}{
		{"no images", func(b *bundle) { b.set(dockerManifestFile, []byte("[]")) }, "it lists no image", ErrNotArchive},
		{"no list", func(b *bundle) { b.set(dockerManifestFile, []byte("{}")) }, "manifest.json in the archive: json: cannot unmarshal", nil},
		{"a huge manifest.json", func(b *bundle) { b.set(dockerManifestFile, bytes.Repeat([]byte{' '}, maxJSON+1)) },
			"manifest.json in the archive: is larger than 8 MiB", nil},
		{"of before 2016", func(b *bundle) { b.remove(dockerManifestFile); b.set("repositories", []byte("{}")) },
			"only what docker before 1.10 wrote", ErrNotArchive},
		{"a bad name", edit(func(_ *bundle, e *dockerEntry) { e.RepoTags = []string{"A:1"} }), `image name "A:1"`, nil},
		{"the config is missing", edit(func(_ *bundle, e *dockerEntry) { e.Config = "none.json" }), "the archive lacks the config none.json", nil},
		{"a config outside", edit(func(_ *bundle, e *dockerEntry) { e.Config = "../../../../etc/passwd" }), "the archive lacks the config ../../../../etc/passwd", nil},
		{"a layer is missing", edit(func(_ *bundle, e *dockerEntry) { e.Layers[1] = "/etc/passwd" }), "layer 2: the archive lacks the layer /etc/passwd", nil},
		{"a layer too few", edit(func(_ *bundle, e *dockerEntry) { e.Layers = e.Layers[:1] }), "lists 1 layers, the config 2 diff ids", ErrDigest},
		{"a layer too many to stack", edit(func(b *bundle, e *dockerEntry) {
			var cfg ImageConfig
			b.edit(e.Config, &cfg, func() {
				for len(e.Layers) <= maxLayers {
					e.Layers = append(e.Layers, e.Layers[0])
					cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, cfg.RootFS.DiffIDs[0])
				}
			})
		}), "the image has 501 layers, more than the 500 that overlayfs stacks", nil},
		{"layers in the wrong order", edit(func(_ *bundle, e *dockerEntry) { e.Layers[0], e.Layers[1] = e.Layers[1], e.Layers[0] }),
			"layer 1: the content does not match", ErrDigest},
		{"a layer packed with xz", edit(func(b *bundle, e *dockerEntry) { b.set(e.Layers[0], []byte("\xfd7zXZ\x00")) }),
			"layer.tar is compressed with xz", ErrMediaType},
		{"a circle of links", edit(func(b *bundle, e *dockerEntry) {
			b.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b"}, nil)
			b.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "b", Linkname: "a"}, nil)
			e.Layers[0] = "a"
		}), "the archive lacks the layer a", nil},
		{"a link to the outside", edit(func(b *bundle, e *dockerEntry) {
			b.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc/passwd"}, nil)
			e.Config = "a"
		}), "the archive lacks the config a", nil},
		{"a config that is no JSON", edit(func(b *bundle, e *dockerEntry) { b.set(e.Config, []byte("x")) }), "read image config: invalid character", nil},
		{"a rootfs of another type", edit(func(b *bundle, e *dockerEntry) { b.set(e.Config, []byte(`{"rootfs":{"type":"disk"}}`)) }),
			`root filesystem of type "disk"`, ErrMediaType},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := bundleOf(t, small().WriteDocker)
			test.change(b)
			s := newStore(t)
			_, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(b.tar())})
			wantError(t, err, test.want, "")
			if test.err != nil && !errors.Is(err, test.err) {
				t.Errorf("got %v, want it to be %v", err, test.err)
			}
			wantEmpty(t, s)
		})
	}
}

// Entries that would do harm if they were taken for paths, and the limits.
func TestLoadHostileEntries(t *testing.T) {
	b := bundleOf(t, small().WriteDocker)
	outside := filepath.Join(t.TempDir(), "outside")
	for _, name := range []string{"../../../../../../.." + outside, outside, "./" + dockerManifestFile + "/../../" + outside} {
		b.add(&tar.Header{Typeflag: tar.TypeReg, Name: name}, []byte("x"))
		b.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name + "l", Linkname: outside}, nil)
	}
	for _, typeflag := range []byte{tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeDir} {
		b.add(&tar.Header{Typeflag: typeflag, Name: "special" + string(typeflag), Devmajor: 1, Devminor: 3}, nil)
	}
	s := newStore(t)
	load(t, s, b.tar())
	if _, err := os.Lstat(outside); err == nil {
		t.Errorf("%s was made", outside)
	}
	if _, err := s.Resolve("small:1"); err != nil {
		t.Error(err)
	}

	many := &bundle{t: t, bodies: make(map[string][]byte)}
	for i := range maxEntries + 1 {
		many.add(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprint(i)}, nil)
	}
	s = newStore(t)
	_, err := s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(many.tar())})
	wantError(t, err, "it has more than 20000 files", "nook import")

	long := bundleOf(t, small().WriteDocker)
	long.add(&tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("x", maxName+1)}, nil)
	_, err = s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(long.tar())})
	wantError(t, err, "a name in it is longer than 4096 bytes", "")
	wantEmpty(t, s)
}

func TestLoadRefusesSparseEntries(t *testing.T) {
	testenv.Need(t, "tar", testenv.Program("tar", "--version"))
	for _, format := range []string{"gnu", "pax"} {
		dir := t.TempDir()
		file, err := os.Create(filepath.Join(dir, indexFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Truncate(1<<40), file.Close()); err != nil {
			t.Fatal(err)
		}
		archive, err := exec.Command("tar", "-C", dir, "--format="+format, "--sparse", "-cf", "-", indexFile).Output()
		if err != nil {
			t.Fatal(err)
		}
		s := newStore(t)
		_, err = s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(archive)})
		wantError(t, err, `"index.json" in the archive is a sparse file`, "--sparse")
		wantEmpty(t, s)
	}
}

func TestLoadLaterEntryReplacesEarlier(t *testing.T) {
	b := bundleOf(t, small().WriteDocker)
	b.headers = append([]*tar.Header{{Typeflag: tar.TypeSymlink, Name: "./" + dockerManifestFile, Linkname: "none"}}, b.headers...)
	s := newStore(t)
	load(t, s, b.tar())
}

func TestLoadDirectoryRefusesWhatLeadsOut(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "index.json")
	if err := os.WriteFile(outside, []byte(`{"schemaVersion":2,"manifests":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if err := small().WriteOCIDir(dir); err != nil {
		t.Fatal(err)
	}
	index := filepath.Join(dir, indexFile)
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, index); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	_, err := s.Load(t.Context(), LoadOptions{Path: dir})
	wantError(t, err, "the directory has no index.json", "")
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	// Opening it would wait for a writer.
	if err := syscall.Mkfifo(index, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Load(t.Context(), LoadOptions{Path: dir})
	wantError(t, err, "the directory has no index.json", "")
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	if err := small().WriteOCIDir(dir); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, blobsDir, "*"))
	if err != nil || len(blobs) != 4 {
		t.Fatal(blobs, err)
	}
	if err := errors.Join(os.Remove(blobs[0]), syscall.Mkfifo(blobs[0], 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Load(t.Context(), LoadOptions{Path: dir})
	wantError(t, err, "the archive lacks", "")
	wantEmpty(t, s)
}
