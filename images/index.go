package images

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *Store) readIndex() (*index, error) {
	data, err := os.ReadFile(s.path(indexFile))
	if err != nil {
		return nil, fmt.Errorf("read image index: %w", err)
	}
	idx := new(index)
	if err := json.Unmarshal(data, idx); err != nil {
		return nil, fmt.Errorf("read image index %s: %w", s.path(indexFile), err)
	}
	return idx, nil
}

func (s *Store) writeIndex(idx *index) error {
	idx.SchemaVersion, idx.MediaType = 2, mediaTypeIndex
	if idx.Manifests == nil {
		idx.Manifests = []Descriptor{} // null is not a list to other readers
	}
	// Not indented: each run reads it, and white space is a quarter of that.
	data, err := json.Marshal(idx)
	if err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	return s.replaceIndex(append(data, '\n'))
}

// update changes the index under the lock.
func (s *Store) update(ctx context.Context, change func(*index) error) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	idx, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := change(idx); err != nil {
		return err
	}
	return s.writeIndex(idx)
}

// images gathers the entries of one manifest, one a name, into one image.
// What another program wrote into the layout and can't be read is left out:
// it must not make the rest unusable.
func (s *Store) images(idx *index) []Image {
	var list []Image
	at := make(map[string]int, len(idx.Manifests))
	for _, entry := range idx.Manifests {
		if !isManifestType(entry.MediaType) || checkDigest(entry.Digest) != nil {
			continue
		}
		i, seen := at[entry.Digest]
		if !seen {
			img, err := s.image(entry)
			if err != nil {
				continue
			}
			i = len(list)
			at[entry.Digest] = i
			list = append(list, img)
		}
		if of := entry.Annotations[annotationIndex]; of != "" && !slices.Contains(list[i].Indexes, of) {
			list[i].Indexes = append(list[i].Indexes, of)
		}
		if from := entry.Annotations[annotationSource]; from != "" && !slices.Contains(list[i].Sources, from) {
			list[i].Sources = append(list[i].Sources, from)
		}
		if name := entryName(entry); name != "" && !slices.Contains(list[i].Names, name) {
			list[i].Names = append(list[i].Names, name)
		}
	}
	return list
}

// image reads the cached annotations of one entry, or, where another program
// added the entry, what they would say.
func (s *Store) image(entry Descriptor) (Image, error) {
	if checkDigest(entry.Annotations[annotationConfig]) != nil {
		described, err := s.describe(entry)
		if err != nil {
			return Image{}, err
		}
		if size := entry.Annotations[annotationUnpacked]; size != "" {
			described.Annotations[annotationUnpacked] = size // see Count
		}
		entry = described
	}
	img := Image{ID: entry.Annotations[annotationConfig], Manifest: entry}
	if from := entry.Annotations[annotationSource]; from != "" {
		img.Sources = []string{from}
	}
	img.Manifest.Annotations = nil
	// A bad number reads as 0: the cache is not worth an error.
	img.Size, _ = strconv.ParseInt(entry.Annotations[annotationSize], 10, 64)
	img.UnpackedSize, _ = strconv.ParseInt(entry.Annotations[annotationUnpacked], 10, 64)
	img.Created, _ = time.Parse(time.RFC3339Nano, entry.Annotations[annotationCreated])
	for key, value := range entry.Annotations {
		if key == annotationRefName || strings.HasPrefix(key, annotationPrefix) {
			continue
		}
		if img.Annotations == nil {
			img.Annotations = make(map[string]string)
		}
		img.Annotations[key] = value
	}
	return img, nil
}

func (s *Store) describe(entry Descriptor) (Descriptor, error) {
	img := Image{Manifest: entry}
	m, err := s.Manifest(img)
	if err != nil {
		return entry, err
	}
	img.ID = m.Config.Digest
	cfg, err := s.Config(img)
	if err != nil {
		return entry, err
	}
	return newEntry(entry, m, cfg), nil
}

// newEntry is desc as index.json keeps it, without a name.
func newEntry(desc Descriptor, m *Manifest, cfg *ImageConfig) Descriptor {
	var size int64
	for _, l := range m.Layers {
		size += l.Size
	}
	platform := cfg.Platform()
	entry := Descriptor{
		MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, Platform: &platform,
		Annotations: map[string]string{
			annotationConfig: m.Config.Digest,
			annotationSize:   strconv.FormatInt(size, 10),
		},
	}
	if cfg.Created != nil {
		entry.Annotations[annotationCreated] = cfg.Created.UTC().Format(time.RFC3339Nano)
	}
	return entry
}

// entryName is the full name of an entry, "" when it has none. skopeo and
// umoci may have written a short one.
func entryName(entry Descriptor) string {
	name := entry.Annotations[annotationRefName]
	if name == "" || entry.Annotations[annotationConfig] != "" {
		return name
	}
	ref, err := ParseReference(name)
	if err != nil {
		return ""
	}
	return ref.String()
}

func setUnpacked(entry Descriptor, size int64) {
	if size > 0 {
		entry.Annotations[annotationUnpacked] = strconv.FormatInt(size, 10)
	}
}

// put adds an image to the index under its names, taking them from whatever
// had them; an image that loses its last name stays as an entry without one.
func (idx *index) put(entry Descriptor, names []Reference) {
	for _, ref := range names {
		idx.rename(entry, ref.String())
	}
	for _, other := range idx.Manifests {
		if other.Digest == entry.Digest {
			return
		}
	}
	idx.Manifests = append(idx.Manifests, entry)
}

// rename gives entry a name, and takes away the image's entry without one.
func (idx *index) rename(entry Descriptor, name string) {
	kept := idx.Manifests[:0:0]
	for _, other := range idx.Manifests {
		old := entryName(other)
		switch {
		case old == "" && other.Digest == entry.Digest:
		case old != name:
			kept = append(kept, other)
		case other.Digest != entry.Digest && !idx.hasOtherName(other.Digest, name):
			kept = append(kept, withName(other, ""))
		}
	}
	idx.Manifests = append(kept, withName(entry, name))
}

func (idx *index) hasOtherName(digest, name string) bool {
	for _, entry := range idx.Manifests {
		if entry.Digest == digest && entryName(entry) != name {
			return true
		}
	}
	return false
}

// withName is entry with annotations of its own, a name among them.
func withName(entry Descriptor, name string) Descriptor {
	annotations := make(map[string]string, len(entry.Annotations)+1)
	for key, value := range entry.Annotations {
		annotations[key] = value
	}
	delete(annotations, annotationRefName)
	if name != "" {
		annotations[annotationRefName] = name
	}
	entry.Annotations = annotations
	return entry
}
