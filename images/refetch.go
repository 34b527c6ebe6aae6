package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"nook/images/registry"
)

// A repair fetches what is damaged or lost from where its image was pulled:
//
//	check ──► blobs that are wrong ──► .staging/N/M, held to digest and size
//	                                          └──► blobs/sha256/HEX, as a pull's
//
// without the store's lock, which is taken for the last step alone. What could
// not be fetched, nobody removes whose registry may only be out of reach.

// refetching is that part of a check.
type refetching struct {
	*checking
	stage *staging
	open  map[string]Remote
}

// refetch mends the blobs of images that know their source, as far as it can.
func (c *checking) refetch(ctx context.Context) error {
	idx, err := c.store.readIndex()
	if err != nil {
		return nil // the rest of the check tells
	}
	r := &refetching{checking: c, open: make(map[string]Remote)}
	defer func() {
		if r.stage != nil {
			r.stage.close()
		}
	}()
	for _, img := range c.store.images(mendable(idx)) {
		if err := r.image(ctx, img); err != nil {
			return err
		}
	}
	if r.stage == nil || len(r.stage.kept) == 0 {
		return nil
	}
	if err := r.stage.sync()(); err != nil {
		return err
	}
	for digest := range r.stage.kept {
		// What a file can't be renamed to is no blob of anybody's.
		if info, err := os.Lstat(c.store.blobPath(digest)); err == nil && info.IsDir() {
			_ = os.RemoveAll(c.store.blobPath(digest))
		}
	}
	if err := r.stage.commit(ctx, func(*index) error { return nil }); err != nil {
		return err
	}
	for digest := range r.stage.kept {
		delete(c.bad, digest)
	}
	return nil
}

// mendable is the index with those entries alone that say where they are from:
// of the others, images would read the manifest.
func mendable(idx *index) *index {
	some := *idx
	some.Manifests = nil
	for _, entry := range idx.Manifests {
		if entry.Annotations[annotationSource] != "" && entry.Annotations[annotationConfig] != "" {
			some.Manifests = append(some.Manifests, entry)
		}
	}
	return &some
}

// image fetches what an image lacks. An error is one of this disk, or of ctx.
func (r *refetching) image(ctx context.Context, img Image) error {
	if ok, err := r.blob(ctx, img, "manifest", img.Manifest); !ok {
		return err
	}
	data, err := readJSONFile(r.pathOf(img.Manifest.Digest))
	if err != nil {
		return err
	}
	m, err := parseManifest(data, img.Manifest.MediaType)
	if err != nil {
		return nil //nolint:nilerr // told by the rest of the check
	}
	for i, d := range append([]Descriptor{m.Config}, m.Layers...) {
		what := "config"
		if i > 0 {
			what = fmt.Sprintf("layer %d", i)
		}
		if _, err := r.blob(ctx, img, what, d); err != nil {
			return err
		}
	}
	return nil
}

func (r *refetching) pathOf(digest string) string {
	if r.stage == nil {
		return r.store.blobPath(digest)
	}
	return r.stage.pathOf(digest)
}

// blob fetches one that is wrong; ok: it is right now, or was.
func (r *refetching) blob(ctx context.Context, img Image, what string, d Descriptor) (ok bool, err error) {
	fact := r.checking.blob(what, d)
	if fact == "" || r.stage != nil && r.stage.kept[d.Digest] != "" {
		return true, nil
	}
	if err := checkDigest(d.Digest); err != nil {
		return false, nil //nolint:nilerr // told by the rest of the check
	}
	if r.stage == nil {
		if r.stage, err = r.store.stage(ctx); err != nil {
			return false, err
		}
	}
	var failed error
	for _, source := range img.Sources {
		var fetchErr error
		fetchErr, err = r.from(ctx, source, what, d)
		if err != nil {
			return false, err
		}
		if fetchErr == nil {
			r.add("image "+label(img), fact, "fetched again from "+strings.TrimSuffix(FamiliarName(source), ":"+defaultTag), "")
			return true, nil
		}
		if failed == nil || !errors.Is(fetchErr, registry.ErrNotFound) {
			failed = fetchErr
		}
	}
	if !errors.Is(failed, registry.ErrNotFound) {
		r.unfetched[d.Digest] = failed.Error()
	}
	return false, nil
}

// from tells what a registry's part of a failure is, and what ours.
func (r *refetching) from(ctx context.Context, source, what string, d Descriptor) (failed, err error) {
	remote := r.open[source]
	if remote == nil {
		ref, parseErr := ParseReference(source)
		if parseErr != nil {
			return parseErr, nil
		}
		if remote, failed = r.opts.From(ref); failed != nil {
			return failed, nil
		}
		r.open[source] = remote
	}
	file := staged{path: r.stage.newPath(), digest: d.Digest, size: d.Size}
	f, err := os.OpenFile(file.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := newHashWriter()
	out := &diskWriter{w: io.MultiWriter(f, sum)}
	if what == "manifest" {
		var m registry.Manifest
		if m, failed = remote.Manifest(ctx, d.Digest, manifestTypes()); failed == nil {
			_, _ = out.Write(m.Body)
		}
	} else {
		add, end := progress(r.opts.Progress, ShortID(d.Digest), d.Size)
		failed = remote.Blob(ctx, d.Digest, d.Size, 0, io.MultiWriter(out, counter(add)))
		end()
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case out.err != nil:
		return nil, r.stage.full(out.err)
	case failed != nil:
		return failed, nil
	case sum.digest() != d.Digest || sum.size != d.Size:
		return fmt.Errorf("%w: it sends %s of %d bytes", ErrDigest, sum.digest(), sum.size), nil
	}
	r.stage.keep(file)
	return nil, f.Close()
}

// diskWriter remembers that it was the disk that failed.
type diskWriter struct {
	w   io.Writer
	err error
}

func (d *diskWriter) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err != nil {
		d.err = err
	}
	return n, err
}

// counter is a writer that only counts.
type counter func(int64)

func (c counter) Write(p []byte) (int, error) {
	c(int64(len(p)))
	return len(p), nil
}
