package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"nook/internal/hint"
)

// LoadOptions says what Load reads and what happens to it.
type LoadOptions struct {
	// Path is an archive file or an OCI layout directory; "" means Input.
	Path string
	// Input is read to its end when Path is "". A blocked Read doesn't keep
	// Load from ending with its context.
	Input io.Reader
	// Platform, os/arch[/variant], is what an image of several platforms is
	// looked through for; "" means this host's, and that an image of one
	// platform is taken whatever it is for.
	Platform string
	// Progress, if set, opens one bar: add counts bytes read, end closes it.
	// The total is 0 when it isn't known.
	Progress Progress
	// Unpack, if set, is called for each image before anything is stored, no
	// lock being held. An error of it ends Load with nothing stored.
	Unpack UnpackFunc
}

// Progress opens a bar for a piece of work of total bytes.
type Progress func(label string, total int64) (add func(int64), end func())

// UnpackFunc unpacks the layers of an image. Their blobs may lie in a staging
// directory that is gone when it returns. It may set UnpackedSize.
type UnpackFunc func(ctx context.Context, img Image, layers []Layer) error

// candidate is an image that was read and verified, not yet in the store.
type candidate struct {
	desc     Descriptor
	manifest *Manifest
	config   *ImageConfig
	names    []Reference
	// annotations go on the entry in the index.
	annotations map[string]string
}

// readable refuses an image that nobody could use, or remove with its layers,
// once it is in the store.
func (c *candidate) readable() error {
	for _, part := range []struct {
		what string
		size int64
	}{{"config", c.manifest.Config.Size}, {"manifest", c.desc.Size}} {
		if part.size > maxJSON {
			return hint.Errorf("its labels, environment and history are too long: what is long belongs into a file of the image",
				"the image's %s has %d bytes, over the %d MiB that are read of one", part.what, part.size, maxJSON>>20)
		}
	}
	return nil
}

// loader is one call of Load.
type loader struct {
	opts  LoadOptions
	stage *staging
	src   archive
	// base names the archive, for names that are only tags; "" for a stream.
	base string
	want Platform
	// single says that an image of one platform is taken whatever it is for.
	single bool
}

// Load brings the images of an archive into the store: what docker save wrote
// (of any age since manifest.json, 2016), an OCI archive or an OCI layout
// directory. Every digest and size is verified; all images come in, or none.
//
// Names are docker's RepoTags, or the names that an OCI layout has as
// annotations. One that is only a tag, as skopeo and umoci write it, is put
// behind the file's own name: of oci:/tmp/busybox:1.36 comes busybox:1.36.
// (podman makes localhost/1.36:latest of it.) From a stream such an image comes
// without a name. A name that another image has moves to the new one.
//
// The images are returned with the names that the archive gives them.
func (s *Store) Load(ctx context.Context, opts LoadOptions) ([]Image, error) {
	label := opts.Path
	if label == "" {
		label = "standard input"
	}
	list, err := s.load(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", label, withoutPath(err, opts.Path))
	}
	return list, nil
}

// withoutPath keeps "load x: open x: no such file" from saying x twice.
func withoutPath(err error, path string) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && pathErr.Path == path {
		return hint.Wrap(pathErr.Err, hint.Of(err))
	}
	return err
}

func (s *Store) load(ctx context.Context, opts LoadOptions) ([]Image, error) {
	want, err := parsePlatform(opts.Platform)
	if err != nil {
		return nil, err
	}
	input, err := openInput(ctx, opts.Path, opts.Input)
	if err != nil {
		return nil, err
	}
	defer input.close()
	stage, err := s.stage(ctx)
	if err != nil {
		return nil, err
	}
	defer stage.close()
	l := &loader{opts: opts, stage: stage, want: want, single: opts.Platform == "", base: baseName(opts.Path)}

	add, end := progress(opts.Progress, "reading", input.size)
	l.src, err = input.archive(ctx, stage, add)
	if err != nil {
		end()
		return nil, err
	}
	found, err := l.interpret()
	end()
	if err != nil {
		return nil, err
	}
	return stage.finish(ctx, found, opts.Unpack)
}

func progress(p Progress, label string, total int64) (func(int64), func()) {
	if p == nil {
		return func(int64) {}, func() {}
	}
	return p(label, total)
}

// finish unpacks the images and commits them.
func (g *staging) finish(ctx context.Context, found []candidate, unpack UnpackFunc) ([]Image, error) {
	wait := g.secure(ctx, found)
	list, entries, err := g.unpack(ctx, found, unpack)
	if secureErr := wait(); err == nil {
		err = secureErr
	}
	if err != nil {
		return nil, err
	}
	err = g.commit(ctx, func(idx *index) error {
		for i, entry := range entries {
			idx.put(entry, found[i].names)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (g *staging) unpack(ctx context.Context, found []candidate, unpack UnpackFunc) ([]Image, []Descriptor, error) {
	list := make([]Image, len(found))
	entries := make([]Descriptor, len(found))
	for i, c := range found {
		if err := c.readable(); err != nil {
			return nil, nil, err
		}
		layers, err := layersOf(c.manifest, c.config, g.pathOf)
		if err != nil {
			return nil, nil, err
		}
		entry := newEntry(c.desc, c.manifest, c.config)
		for key, value := range c.annotations {
			entry.Annotations[key] = value
		}
		if list[i], err = g.store.image(entry); err != nil {
			return nil, nil, err
		}
		for _, ref := range c.names {
			list[i].Names = append(list[i].Names, ref.String())
		}
		if len(list[i].Sources) > 0 {
			for j := range layers {
				layers[j].From = list[i].Sources[0]
			}
		}
		g.store.markKnown(layers)
		if unpack != nil {
			if err := unpack(ctx, list[i], layers); err != nil {
				return nil, nil, err
			}
		}
		list[i].UnpackedSize = unpackedSize(layers)
		setUnpacked(entry, list[i].UnpackedSize)
		entries[i] = entry
	}
	return list, entries, ctx.Err()
}

// unpackedSize is 0 unless every layer was counted.
func unpackedSize(layers []Layer) int64 {
	var sum int64
	for _, l := range layers {
		if l.UnpackedSize < 0 {
			return 0
		}
		sum += l.UnpackedSize
	}
	return sum
}

// interpret finds the images of an archive. Where docker wrote an OCI layout
// and a manifest.json side by side, the layout counts: it has the digests that
// the registry knows.
func (l *loader) interpret() ([]candidate, error) {
	var found []candidate
	var err error
	switch {
	case l.src.has(indexFile):
		found, err = l.fromLayout()
	case l.src.has(dockerManifestFile):
		found, err = l.fromDocker()
	case l.src.has("repositories"):
		err = hint.Errorf("save it again with a docker of 2016 or later",
			"%w: it has no manifest.json, only what docker before 1.10 wrote", ErrNotArchive)
	default:
		err = hint.Errorf("a root filesystem is brought in with nook import",
			"%w: it has no %s and no %s", ErrNotArchive, dockerManifestFile, indexFile)
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%w: it lists no image", ErrNotArchive)
	}
	return found, err
}

// readJSON reads a small file of the archive.
func (l *loader) readJSON(name string, v any) error {
	file, err := l.src.file(name)
	if err != nil {
		return err
	}
	data, err := readJSONFile(file.path)
	if err != nil {
		return fmt.Errorf("%s in the archive: %w", name, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s in the archive: %w", name, err)
	}
	return nil
}

// blob brings a blob of an OCI layout into the staging directory and holds it
// to its digest and size.
func (l *loader) blob(what string, d Descriptor) (staged, error) {
	if err := checkDescriptor(d); err != nil {
		return staged{}, fmt.Errorf("%s: %w", what, err)
	}
	file, err := l.src.file(blobsDir + "/" + hexOf(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return staged{}, hint.Errorf("copy or download it again, and compare sizes",
			"the archive lacks %s %s", what, d.Digest)
	}
	if err != nil {
		return staged{}, fmt.Errorf("%s: %w", what, err)
	}
	if file.digest != d.Digest {
		return staged{}, hint.Errorf("copy or download it again",
			"%s: %w: it has digest %s and should have %s", what, ErrDigest, file.digest, d.Digest)
	}
	if file.size != d.Size {
		return staged{}, fmt.Errorf("%s %s: %w: it has %d bytes and should have %d",
			what, d.Digest, ErrDigest, file.size, d.Size)
	}
	return file, nil
}

// blobData is blob for what is JSON.
func (l *loader) blobData(what string, d Descriptor) ([]byte, staged, error) {
	file, err := l.blob(what, d)
	if err != nil {
		return nil, staged{}, err
	}
	data, err := readJSONFile(file.path)
	if err != nil {
		return nil, staged{}, fmt.Errorf("%s %s: %w", what, d.Digest, err)
	}
	return data, file, nil
}

// keepJSON stores and keeps what nook itself writes.
func (g *staging) keepJSON(v any) (staged, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return staged{}, err
	}
	return g.keepBytes(bytes.NewReader(data))
}
