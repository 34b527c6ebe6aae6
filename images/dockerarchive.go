package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"nook/internal/hint"
)

// What docker save writes, and podman, skopeo, buildah, kaniko and bazel after
// it: manifest.json beside configs and layers under any names. Before docker 25
// a layer is ID/layer.tar, plain, and one that occurred before is a symlink to
// it; since then the archive is an OCI layout as well, and this file is read
// for its names only.

const dockerManifestFile = "manifest.json"

type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (l *loader) dockerEntries() ([]dockerEntry, error) {
	var entries []dockerEntry
	if err := l.readJSON(dockerManifestFile, &entries); err != nil {
		return nil, err
	}
	if len(entries) > maxImages {
		return nil, fmt.Errorf("the archive lists more than %d images", maxImages)
	}
	return entries, nil
}

// dockerTags maps config digests to the names that manifest.json beside an
// OCI layout gives them. It is only an addition, so a broken one says nothing.
func (l *loader) dockerTags() map[string][]Reference {
	if !l.src.has(dockerManifestFile) {
		return nil
	}
	entries, err := l.dockerEntries()
	if err != nil {
		return nil
	}
	tags := make(map[string][]Reference)
	for _, entry := range entries {
		file, err := l.src.file(entry.Config)
		if err != nil {
			continue
		}
		if refs, err := parseTags(entry.RepoTags); err == nil {
			tags[file.digest] = append(tags[file.digest], refs...)
		}
	}
	return tags
}

func parseTags(tags []string) ([]Reference, error) {
	var refs []Reference
	for _, tag := range tags {
		ref, err := ParseReference(tag)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// fromDocker reads the images of a docker archive and writes an OCI manifest
// for each. It holds the same for the same archive.
func (l *loader) fromDocker() ([]candidate, error) {
	entries, err := l.dockerEntries()
	if err != nil {
		return nil, err
	}
	var found []candidate
	var there []Platform
	for _, entry := range entries {
		c, err := l.dockerImage(entry)
		if err != nil {
			return nil, err
		}
		if p := c.config.Platform(); !l.single && l.want.rank(p) == 0 {
			there = append(there, p)
			continue
		}
		found = addCandidate(found, c)
	}
	if len(found) == 0 && len(there) > 0 {
		return nil, noPlatform(l.want, there)
	}
	return found, nil
}

func (l *loader) dockerImage(entry dockerEntry) (candidate, error) {
	names, err := parseTags(entry.RepoTags)
	if err != nil {
		return candidate{}, err
	}
	file, err := l.named("config", entry.Config)
	if err != nil {
		return candidate{}, err
	}
	data, err := readJSONFile(file.path)
	if err != nil {
		return candidate{}, fmt.Errorf("image config: %w", err)
	}
	cfg, err := parseConfig(data)
	if err != nil {
		return candidate{}, err
	}
	l.stage.keep(file)
	m := &Manifest{
		SchemaVersion: 2, MediaType: mediaTypeManifest,
		Config: Descriptor{MediaType: mediaTypeConfig, Digest: file.digest, Size: file.size},
		Layers: []Descriptor{},
	}
	if len(entry.Layers) != len(cfg.RootFS.DiffIDs) {
		return candidate{}, fmt.Errorf("%w: %s lists %d layers, the config %d diff ids",
			ErrDigest, dockerManifestFile, len(entry.Layers), len(cfg.RootFS.DiffIDs))
	}
	if err := stackable(len(entry.Layers)); err != nil {
		return candidate{}, err
	}
	for i, name := range entry.Layers {
		layer, err := l.dockerLayer(name, cfg.RootFS.DiffIDs[i])
		if err != nil {
			return candidate{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		m.Layers = append(m.Layers, layer)
	}
	manifest, err := l.stage.keepJSON(m)
	if err != nil {
		return candidate{}, err
	}
	return candidate{
		desc:     Descriptor{MediaType: mediaTypeManifest, Digest: manifest.digest, Size: manifest.size},
		manifest: m, config: cfg, names: names,
	}, nil
}

func (l *loader) dockerLayer(name, diffID string) (Descriptor, error) {
	file, err := l.named("layer", name)
	if err != nil {
		return Descriptor{}, err
	}
	head, err := readHead(file.path)
	if err != nil {
		return Descriptor{}, err
	}
	d := Descriptor{MediaType: layerTypeOf(head), Digest: file.digest, Size: file.size}
	if d.MediaType == "" {
		return Descriptor{}, fmt.Errorf("%w: %s is %s", ErrMediaType, shorten(name), whatIs(head))
	}
	if err := checkPlainLayer(file, Layer{MediaType: d.MediaType, DiffID: diffID}); err != nil {
		return Descriptor{}, err
	}
	l.stage.keep(file)
	return d, nil
}

// named is a file that manifest.json refers to.
func (l *loader) named(what, name string) (staged, error) {
	file, err := l.src.file(name)
	if errors.Is(err, fs.ErrNotExist) {
		return staged{}, hint.Errorf("copy or download it again, and compare sizes",
			"the archive lacks the %s %s", what, shorten(name))
	}
	return file, err
}

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}
