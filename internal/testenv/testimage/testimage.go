// Package testimage writes small images for tests in the three forms that
// people have them in, byte for byte under the test's control, so that wrong
// ones can be written too.
//
//	img, err := testimage.Busybox()
//	err = img.WriteDocker(file)                       // what docker save writes
//	img.Compression = testimage.Zstd
//	err = img.WriteOCIDir(dir)                        // an OCI image layout
//
// It shares no code with what it tests: layers are written with archive/tar and
// the JSON is spelt out here.
package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Compressions of a layer.
const (
	Plain = ""
	Gzip  = "gzip"
	Zstd  = "zstd"
)

// Image is an image to be written. The zero Architecture is this machine's.
type Image struct {
	Name         string // "busybox:latest"
	Layers       []Layer
	Config       Config
	Architecture string
	Compression  string
}

// Layer is the entries of a layer's tar stream, in order. Raw, when it is set,
// is the stream itself, for layers that no tar writer would write.
type Layer struct {
	Entries []Entry
	Raw     []byte
}

// Entry is one entry of a layer. The zero Typeflag is a regular file and the
// zero ModTime a fixed day, so that the same entries give the same digest.
type Entry struct {
	tar.Header
	Body string
}

// Config is the part of an image's config that a container takes over, with
// the names of the OCI image specification.
type Config struct {
	User         string              `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
}

// Epoch is the time of all that has no other.
var Epoch = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

// Dir is a directory entry.
func Dir(name string, mode int64) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

// File is a regular file entry.
func File(name string, mode int64, body string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, Body: body}
}

// Symlink is a symbolic link entry.
func Symlink(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}}
}

// Link is a hard link entry.
func Link(name, target string) Entry {
	return Entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}}
}

// Owned returns e with an owner.
func (e Entry) Owned(uid, gid int) Entry {
	e.Uid, e.Gid = uid, gid
	return e
}

// Tar returns the layer's tar stream, not compressed.
func (l Layer) Tar() ([]byte, error) {
	if l.Raw != nil {
		return l.Raw, nil
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range l.Entries {
		h := e.Header
		if h.ModTime.IsZero() {
			h.ModTime = Epoch
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(e.Body))
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.Name, err)
		}
		if _, err := io.WriteString(w, e.Body); err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// Compress returns data in a compression.
func Compress(compression string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	switch compression {
	case Plain:
		return data, nil
	case Gzip:
		w = gzip.NewWriter(&b)
	case Zstd:
		z, err := zstd.NewWriter(&b)
		if err != nil {
			return nil, err
		}
		w = z
	default:
		return nil, fmt.Errorf("no compression is called %q", compression)
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// Digest is the sha256 digest of data as images spell it.
func Digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// arch is the architecture as the config says it.
func (i Image) arch() string {
	if i.Architecture != "" {
		return i.Architecture
	}
	return runtime.GOARCH
}

// blobs are an image in pieces.
type blobs struct {
	config []byte
	layers [][]byte // compressed as the image says
	tars   [][]byte
}

func (i Image) blobs() (b blobs, err error) {
	var diffIDs []string
	for n, l := range i.Layers {
		tarred, err := l.Tar()
		if err != nil {
			return b, fmt.Errorf("layer %d: %w", n, err)
		}
		packed, err := Compress(i.Compression, tarred)
		if err != nil {
			return b, fmt.Errorf("layer %d: %w", n, err)
		}
		diffIDs = append(diffIDs, Digest(tarred))
		b.layers = append(b.layers, packed)
		b.tars = append(b.tars, tarred)
	}
	b.config, err = json.Marshal(map[string]any{
		"created":      Epoch,
		"architecture": i.arch(),
		"os":           "linux",
		"config":       i.Config,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	return b, err
}
