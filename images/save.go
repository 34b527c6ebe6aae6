package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// Save writes images to w as docker does since version 25: an OCI layout with
// docker's manifest.json beside it, so that docker, podman, skopeo and umoci
// read it. The blobs are the store's own, as they came: owners and digests are
// right whatever could be unpacked here. The same images make the same archive.
//
//	oci-layout  index.json  manifest.json  blobs/sha256/HEX…
//
// What the archive means stands before its blobs, for who reads it as it comes.
//
// A name without a tag means all tags of the repository, an ID the image
// without a name. Blobs that several images have are written once; one that
// isn't what its digest says ends Save with an error.
func (s *Store) Save(ctx context.Context, w io.Writer, names []string) ([]Image, error) {
	list, err := s.save(ctx, w, names)
	if err != nil {
		return nil, fmt.Errorf("save: %w", err)
	}
	return list, nil
}

func (s *Store) save(ctx context.Context, w io.Writer, names []string) ([]Image, error) {
	stage, err := s.stage(ctx)
	if errors.Is(err, unix.EROFS) {
		stage, err = s.unstaged(), nil
	}
	if err != nil {
		return nil, err
	}
	defer stage.close()
	list, blobs, err := stage.hold(ctx, names)
	if err != nil {
		return nil, err
	}
	return list, writeArchive(ctx, w, list, s.Manifest, blobs, stage.pathOf)
}

// writeArchive writes images, and the blobs that they have.
func writeArchive(ctx context.Context, w io.Writer, list []Image, manifest func(Image) (*Manifest, error),
	blobs []Descriptor, pathOf func(digest string) string,
) error {
	out := &archiveWriter{tar: tar.NewWriter(w)}
	if err := out.describe(manifest, list); err != nil {
		return err
	}
	if err := out.dirs("blobs/", blobsDir+"/"); err != nil {
		return err
	}
	for _, d := range blobs {
		if err := out.blob(ctx, d, pathOf(d.Digest)); err != nil {
			return err
		}
	}
	return out.tar.Close()
}

// hold finds the images, and makes sure that their blobs stay until the staging
// directory goes, whoever removes the images meanwhile: by hard links.
func (g *staging) hold(ctx context.Context, names []string) ([]Image, []Descriptor, error) {
	unlock, err := g.store.lock(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	idx, err := g.store.readIndex()
	if err != nil {
		return nil, nil, err
	}
	list, err := chosen(g.store.images(idx), names)
	if err != nil {
		return nil, nil, err
	}
	var blobs []Descriptor
	for _, img := range list {
		m, err := g.store.Manifest(img)
		if err != nil {
			return nil, nil, fmt.Errorf("image %s: %w", label(img), err)
		}
		for _, d := range append([]Descriptor{img.Manifest, m.Config}, m.Layers...) {
			if _, held := g.kept[d.Digest]; held {
				continue
			}
			path, err := g.take(d.Digest)
			if err != nil {
				return nil, nil, hint.Wrap(fmt.Errorf("image %s: %w", label(img), err), "nook system check tells what the store lacks")
			}
			g.keep(staged{path: path, digest: d.Digest, size: d.Size})
			blobs = append(blobs, d)
		}
	}
	return list, blobs, nil
}

// take gives a path at which a blob of the store stays.
func (g *staging) take(digest string) (string, error) {
	path := g.store.blobPath(digest)
	if g.dir == "" {
		_, err := os.Lstat(path)
		return path, err
	}
	link := g.newPath()
	return link, linkOrCopy(path, link)
}

// chosen finds each image once, with the names that go with it.
func chosen(all []Image, names []string) ([]Image, error) {
	var list []Image
	for _, name := range names {
		found, err := chooseOne(all, name)
		if err != nil {
			return nil, err
		}
		for _, img := range found {
			i := slices.IndexFunc(list, func(other Image) bool { return other.Manifest.Digest == img.Manifest.Digest })
			if i < 0 {
				list = append(list, img)
				continue
			}
			for _, name := range img.Names {
				if !slices.Contains(list[i].Names, name) {
					list[i].Names = append(list[i].Names, name)
				}
			}
		}
	}
	return list, nil
}

func chooseOne(all []Image, nameOrID string) ([]Image, error) {
	var found []Image
	ref, err := ParseReference(nameOrID)
	if err == nil && ref.Digest == "" && !hasTag(nameOrID) {
		for _, img := range all {
			if img.Names = namesIn(img, ref.Repository()); len(img.Names) > 0 {
				found = append(found, img)
			}
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	img, findErr := Find(all, nameOrID)
	if findErr != nil {
		return nil, findErr
	}
	switch {
	case err == nil && slices.Contains(img.Names, ref.String()):
		img.Names = []string{ref.String()}
	case err == nil && ref.Digest != "" && !strings.HasPrefix(nameOrID, digestPrefix):
		img.Names = namesIn(img, ref.Repository())
	default:
		img.Names = nil
	}
	return []Image{img}, nil
}

// hasTag says whether a reference that is well-formed was given a tag.
func hasTag(reference string) bool {
	ref, err := ParseReference(reference + ":x")
	return err != nil || ref.Tag != "x"
}

// archiveWriter writes the files of an archive, all of one time and owner.
type archiveWriter struct {
	tar *tar.Writer
}

func (a *archiveWriter) header(h tar.Header) error {
	h.ModTime, h.Format = time.Unix(0, 0), tar.FormatPAX
	return a.tar.WriteHeader(&h)
}

func (a *archiveWriter) dirs(names ...string) error {
	for _, name := range names {
		if err := a.header(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}); err != nil {
			return err
		}
	}
	return nil
}

func (a *archiveWriter) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := a.header(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err = a.tar.Write(data)
	return err
}

// describe writes the files that say what is in the archive.
func (a *archiveWriter) describe(manifest func(Image) (*Manifest, error), list []Image) error {
	idx := index{SchemaVersion: 2, MediaType: mediaTypeIndex, Manifests: []Descriptor{}}
	entries := []dockerEntry{}
	for _, img := range list {
		m, err := manifest(img)
		if err != nil {
			return err
		}
		entry := dockerEntry{Config: blobsDir + "/" + hexOf(m.Config.Digest), Layers: []string{}}
		for _, l := range m.Layers {
			entry.Layers = append(entry.Layers, blobsDir+"/"+hexOf(l.Digest))
		}
		bare := Descriptor{MediaType: img.Manifest.MediaType, Digest: img.Manifest.Digest, Size: img.Manifest.Size}
		if len(img.Names) == 0 {
			idx.Manifests = append(idx.Manifests, bare)
		}
		for _, name := range img.Names {
			ref, err := ParseReference(name)
			if err != nil {
				return err
			}
			named := bare
			named.Annotations = map[string]string{annotationContainerdName: name}
			if ref.Tag != "" {
				named.Annotations[annotationRefName] = ref.Tag
				entry.RepoTags = append(entry.RepoTags, Reference{ref.Registry, ref.Path, ref.Tag, ""}.FamiliarTagged())
			}
			idx.Manifests = append(idx.Manifests, named)
		}
		entries = append(entries, entry)
	}
	layout := map[string]string{"imageLayoutVersion": layoutVersion}
	return errors.Join(a.json(layoutFile, layout), a.json(indexFile, idx), a.json(dockerManifestFile, entries))
}

// blob copies one blob, and holds it to its digest and size.
func (a *archiveWriter) blob(ctx context.Context, d Descriptor, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	damaged := func(format string, args ...any) error {
		return hint.Errorf("nook system check --repair removes what is damaged; load or pull the image again",
			"blob %s of the store: %w: %s", d.Digest, ErrDigest, fmt.Sprintf(format, args...))
	}
	if info.Size() != d.Size {
		return damaged("it has %d bytes and should have %d", info.Size(), d.Size)
	}
	if err := a.header(tar.Header{Typeflag: tar.TypeReg, Name: blobsDir + "/" + hexOf(d.Digest), Mode: 0o644, Size: d.Size}); err != nil {
		return err
	}
	sum := newHashWriter()
	if err := copyAll(io.MultiWriter(sum, a.tar), watched(ctx, f, func(int64) {})); err != nil {
		return err
	}
	if got := sum.digest(); got != d.Digest {
		return damaged("it has digest %s", got)
	}
	return nil
}
