package testimage

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// piece is a file of an archive or of a layout.
type piece struct {
	name string
	body []byte
}

// WriteDocker writes the image as `docker save` of docker before 25 did:
// manifest.json, a config named by its digest, and a tar a layer. (docker 25
// and later write an OCI layout with a manifest.json beside it; see WriteBoth.)
func (i Image) WriteDocker(w io.Writer) error {
	pieces, err := i.dockerPieces()
	if err != nil {
		return err
	}
	return writeTar(w, pieces)
}

// WriteOCI writes the image as an OCI archive: the layout in a tar.
func (i Image) WriteOCI(w io.Writer) error {
	pieces, err := i.ociPieces()
	if err != nil {
		return err
	}
	return writeTar(w, pieces)
}

// WriteBoth writes what docker 25 and later save: an OCI layout and docker's
// manifest.json in one archive.
func (i Image) WriteBoth(w io.Writer) error {
	pieces, err := i.ociPieces()
	if err != nil {
		return err
	}
	b, err := i.blobs()
	if err != nil {
		return err
	}
	var layers []string
	for _, l := range b.layers {
		layers = append(layers, blobName(Digest(l)))
	}
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": blobName(Digest(b.config)), "RepoTags": []string{i.Name}, "Layers": layers,
	}})
	if err != nil {
		return err
	}
	return writeTar(w, append(pieces, piece{"manifest.json", manifest}))
}

// WriteOCIDir writes the image as an OCI image layout in a directory, made if
// it isn't there.
func (i Image) WriteOCIDir(dir string) error {
	pieces, err := i.ociPieces()
	if err != nil {
		return err
	}
	for _, p := range pieces {
		name := filepath.Join(dir, p.name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, p.body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (i Image) dockerPieces() ([]piece, error) {
	b, err := i.blobs()
	if err != nil {
		return nil, err
	}
	var pieces []piece
	var layers []string
	for n, l := range b.layers {
		id := strings.TrimPrefix(Digest(append([]byte{byte(n)}, l...)), "sha256:")
		layers = append(layers, id+"/layer.tar")
		pieces = append(pieces, piece{id + "/VERSION", []byte("1.0")}, piece{id + "/layer.tar", l})
	}
	config := strings.TrimPrefix(Digest(b.config), "sha256:") + ".json"
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": config, "RepoTags": []string{i.Name}, "Layers": layers,
	}})
	if err != nil {
		return nil, err
	}
	// manifest.json comes late in real archives too.
	return append(pieces, piece{config, b.config}, piece{"manifest.json", manifest}), nil
}

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func describe(mediaType string, data []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: Digest(data), Size: len(data)}
}

func blobName(digest string) string {
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}

func (i Image) ociPieces() ([]piece, error) {
	b, err := i.blobs()
	if err != nil {
		return nil, err
	}
	mediaType := typeLayer
	if i.Compression != Plain {
		mediaType += "+" + i.Compression
	}
	var layers []descriptor
	var pieces []piece
	add := func(data []byte) { pieces = append(pieces, piece{blobName(Digest(data)), data}) }
	for _, l := range b.layers {
		layers = append(layers, describe(mediaType, l))
		add(l)
	}
	add(b.config)
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest,
		"config": describe(typeConfig, b.config), "layers": layers,
	})
	if err != nil {
		return nil, err
	}
	add(manifest)
	entry := describe(typeManifest, manifest)
	entry.Annotations = map[string]string{"org.opencontainers.image.ref.name": i.Name}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{entry},
	})
	if err != nil {
		return nil, err
	}
	return append(pieces,
		piece{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		piece{"index.json", index}), nil
}

// writeTar writes pieces as an archive, each name once: two layers may be one.
func writeTar(w io.Writer, pieces []piece) error {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	written := map[string]bool{}
	for _, p := range pieces {
		if written[p.name] {
			continue
		}
		written[p.name] = true
		err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: p.name, Mode: 0o644, Size: int64(len(p.body)), ModTime: Epoch})
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if _, err := t.Write(p.body); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
