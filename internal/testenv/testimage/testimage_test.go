package testimage_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv/testimage"
)

func sample() testimage.Image {
	return testimage.Image{
		Name:        "sample:1",
		Layers:      []testimage.Layer{{Entries: []testimage.Entry{testimage.File("f", 0o644, "hello")}}},
		Compression: testimage.Gzip,
	}
}

func TestLayoutIsAddressedByContent(t *testing.T) {
	dir := t.TempDir()
	if err := sample().WriteOCIDir(dir); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	if err != nil || len(blobs) != 3 {
		t.Fatalf("got blobs %v (%v), want a layer, a config and a manifest", blobs, err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := testimage.Digest(data); got != "sha256:"+filepath.Base(b) {
			t.Errorf("%s has the digest %s", b, got)
		}
	}
}

func TestDockerArchiveNamesItsPieces(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteDocker(&b); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || manifest[0].RepoTags[0] != "sample:1" {
		t.Fatalf("got manifest %+v", manifest)
	}
	for _, name := range append(manifest[0].Layers, manifest[0].Config) {
		if files[name] == nil {
			t.Errorf("the archive lacks %s", name)
		}
	}
	if got := testimage.Digest(files[manifest[0].Config]); !strings.HasSuffix(got, strings.TrimSuffix(manifest[0].Config, ".json")) {
		t.Errorf("config %s has the digest %s", manifest[0].Config, got)
	}
}
