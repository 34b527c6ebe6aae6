package images

import (
	"errors"
	"fmt"
	"strings"
)

// maxIndexDepth is how many indexes may refer to one another. buildx has two.
const maxIndexDepth = 4

// maxImages is how many images one archive may list.
const maxImages = 1000

// group is the manifests that one name in index.json leads to: one, or one
// for each platform.
type group struct {
	names     []Reference
	manifests []Descriptor
}

// fromLayout reads the images of an OCI layout.
func (l *loader) fromLayout() ([]candidate, error) {
	if err := l.checkLayoutVersion(); err != nil {
		return nil, err
	}
	file, err := l.src.file(indexFile)
	if err != nil {
		return nil, err
	}
	data, err := readJSONFile(file.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	idx, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	groups, err := l.groups(idx.Manifests)
	if err != nil {
		return nil, err
	}
	tags := l.dockerTags()
	var found []candidate
	for _, g := range groups {
		picked, err := l.pick(g)
		if err != nil {
			return nil, err
		}
		if picked.names == nil {
			picked.names = tags[picked.manifest.Config.Digest]
		}
		found = addCandidate(found, picked)
	}
	return found, nil
}

// addCandidate joins the names of an image that is listed more than once.
func addCandidate(list []candidate, c candidate) []candidate {
	for i := range list {
		if list[i].desc.Digest == c.desc.Digest {
			list[i].names = append(list[i].names, c.names...)
			return list
		}
	}
	return append(list, c)
}

// checkLayoutVersion takes a layout without the file, which old writers left
// out, and any version 1.
func (l *loader) checkLayoutVersion() error {
	if !l.src.has(layoutFile) {
		return nil
	}
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := l.readJSON(layoutFile, &layout); err != nil {
		return err
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return fmt.Errorf("%w: OCI layout of version %q; nook reads version 1", ErrMediaType, shorten(layout.Version))
	}
	return nil
}

// groups sorts the entries of index.json by name. Entries without a name are
// images of their own, unless they say for which platform they are: then
// they are one image for several.
func (l *loader) groups(entries []Descriptor) ([]group, error) {
	var list []group
	at := make(map[string]int)
	for _, entry := range entries {
		manifests, err := l.expand(entry, 0)
		if err != nil {
			return nil, err
		}
		if len(manifests) == 0 {
			continue
		}
		names, err := l.names(entry)
		if err != nil {
			return nil, err
		}
		key := ""
		if len(names) > 0 {
			key = names[0].String()
		} else if entry.Platform == nil {
			key = entry.Digest
		}
		i, found := at[key]
		if !found {
			i = len(list)
			at[key] = i
			list = append(list, group{names: names})
		}
		list[i].manifests = append(list[i].manifests, manifests...)
		if len(list) > maxImages || len(list[i].manifests) > maxImages {
			return nil, fmt.Errorf("the archive lists more than %d images", maxImages)
		}
	}
	return list, nil
}

// expand follows indexes to the image manifests below an entry and leaves out
// what buildx puts beside them. An index that leads back to itself would need
// a collision of sha256; the depth is limited because it costs nothing.
func (l *loader) expand(entry Descriptor, depth int) ([]Descriptor, error) {
	if entry.Annotations[annotationReferenceType] != "" || entry.ArtifactType != "" {
		return nil, nil
	}
	if isManifestType(entry.MediaType) {
		return []Descriptor{entry}, nil
	}
	if !isIndexType(entry.MediaType) {
		return nil, fmt.Errorf("%w: manifest %q", ErrMediaType, shorten(entry.MediaType))
	}
	if depth == maxIndexDepth {
		return nil, fmt.Errorf("image indexes nest deeper than %d", maxIndexDepth)
	}
	data, _, err := l.blobData("index", entry)
	if err != nil {
		return nil, err
	}
	idx, err := parseIndex(data)
	if err != nil {
		return nil, err
	}
	var list []Descriptor
	for _, below := range idx.Manifests {
		more, err := l.expand(below, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
		if len(list) > maxImages {
			return nil, fmt.Errorf("an image index lists more than %d images", maxImages)
		}
	}
	return list, nil
}

// names reads the name of an entry of index.json: see Load.
func (l *loader) names(entry Descriptor) ([]Reference, error) {
	name := entry.Annotations[annotationContainerdName]
	if name == "" {
		name = entry.Annotations[annotationRefName]
	}
	if name == "" {
		return nil, nil
	}
	if !strings.ContainsAny(name, ":/@") {
		// Only a tag. A file whose own name makes no image name gives none.
		if ref, err := ParseReference(l.base + ":" + name); err == nil {
			return []Reference{ref}, nil
		}
		return nil, nil
	}
	ref, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	return []Reference{ref}, nil
}

// pick chooses the image of a group that this host runs.
func (l *loader) pick(g group) (candidate, error) {
	if len(g.manifests) == 1 && l.single {
		c, err := l.image(g.manifests[0])
		c.names = g.names
		return c, err
	}
	best, bestRank := -1, 0
	var there []Platform
	for i := range g.manifests {
		p, err := l.platformOf(g.manifests[i])
		if err != nil {
			return candidate{}, err
		}
		there = append(there, p)
		if rank := l.want.rank(p); rank > bestRank {
			best, bestRank = i, rank
		}
	}
	if best < 0 {
		return candidate{}, noPlatform(l.want, there)
	}
	c, err := l.image(g.manifests[best])
	c.names = g.names
	return c, err
}

// platformOf reads the platform from the config where the index doesn't say.
// What isn't in the archive, as in docker's of an image of several platforms,
// can't be chosen.
func (l *loader) platformOf(d Descriptor) (Platform, error) {
	if d.Platform != nil {
		return *d.Platform, nil
	}
	if !l.src.has(blobsDir + "/" + hexOf(d.Digest)) {
		return Platform{}, nil
	}
	data, _, err := l.blobData("manifest", d)
	if err != nil {
		return Platform{}, err
	}
	m, err := parseManifest(data, d.MediaType)
	if errors.Is(err, ErrMediaType) {
		return Platform{}, nil // no image: an artifact beside the images
	}
	if err != nil {
		return Platform{}, err
	}
	data, _, err = l.blobData("config", m.Config)
	if err != nil {
		return Platform{}, err
	}
	cfg, err := parseConfig(data)
	if err != nil {
		return Platform{}, err
	}
	return cfg.Platform(), nil
}

// image reads one image and keeps all its blobs.
func (l *loader) image(d Descriptor) (candidate, error) {
	data, file, err := l.blobData("manifest", d)
	if err != nil {
		return candidate{}, err
	}
	c := candidate{desc: d}
	if c.manifest, err = parseManifest(data, d.MediaType); err != nil {
		return candidate{}, err
	}
	if err := stackable(len(c.manifest.Layers)); err != nil {
		return candidate{}, err
	}
	l.stage.keep(file)
	data, file, err = l.blobData("config", c.manifest.Config)
	if err != nil {
		return candidate{}, err
	}
	if c.config, err = parseConfig(data); err != nil {
		return candidate{}, err
	}
	l.stage.keep(file)
	list, err := layersOf(c.manifest, c.config, l.stage.pathOf)
	if err != nil {
		return candidate{}, err
	}
	for i, layer := range c.manifest.Layers {
		if file, err = l.blob(fmt.Sprintf("layer %d", i+1), layer); err != nil {
			return candidate{}, err
		}
		if err := checkPlainLayer(file, list[i]); err != nil {
			return candidate{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		l.stage.keep(file)
	}
	return c, nil
}

// checkPlainLayer finds a wrong diff id early where it costs nothing. For
// compressed layers whoever unpacks compares.
func checkPlainLayer(file staged, l Layer) error {
	if isPlainLayer(l.MediaType) && file.digest != l.DiffID {
		return fmt.Errorf("%w: it has digest %s and the config says diff id %s", ErrDigest, file.digest, l.DiffID)
	}
	return nil
}
