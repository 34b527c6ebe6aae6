package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"nook/images/registry"
	"nook/internal/hint"
)

// uploads is how many layers go side by side: docker's number.
const uploads = 5

// Target is a repository that images go to: *registry.Repository.
type Target interface {
	Push(ctx context.Context, u registry.Upload) (registry.Sent, error)
	PushManifest(ctx context.Context, reference, mediaType string, body []byte) error
}

// PushOptions says who is told of a push.
type PushOptions struct {
	Progress Progress
	// Layer is told what becomes of each layer's blob, from several goroutines.
	Layer func(digest string, state LayerState)
}

// Pushed is an image that went to a registry.
type Pushed struct {
	Digest string // of the manifest
	Size   int64  // of the manifest, in bytes
}

// Push sends the image that ref names in the store to a repository, under
// ref's tag. The blobs are those that the image came with, or was committed
// with, so what single ids can't hold on disk, owners and devices, is in them.
func (s *Store) Push(ctx context.Context, to Target, ref Reference, opts PushOptions) (Pushed, error) {
	pushed, err := s.push(ctx, to, ref, opts)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", ref.FamiliarTagged(), err)
	}
	return pushed, nil
}

func (s *Store) push(ctx context.Context, to Target, ref Reference, opts PushOptions) (Pushed, error) {
	idx, err := s.readIndex()
	if err != nil {
		return Pushed{}, err
	}
	list := s.images(idx)
	img, found := findName(list, ref)
	if !found {
		return Pushed{}, hint.Errorf("give the image the registry's name first: nook tag IMAGE "+ref.FamiliarTagged(),
			"image %q: %w", ref.FamiliarTagged(), ErrNotFound)
	}
	body, err := s.readBlob(img.Manifest.Digest)
	if err != nil {
		return Pushed{}, fmt.Errorf("read manifest: %w", err)
	}
	m, err := parseManifest(body, img.Manifest.MediaType)
	if err != nil {
		return Pushed{}, err
	}
	if err := s.Prove(ctx, img); err != nil {
		return Pushed{}, err
	}
	p := &pushing{store: s, to: to, opts: opts, from: s.siblings(list, ref)}
	if err := p.blobs(ctx, m); err != nil {
		return Pushed{}, err
	}
	if err := to.PushManifest(ctx, ref.Tag, img.Manifest.MediaType, body); err != nil {
		return Pushed{}, fmt.Errorf("manifest: %w", err)
	}
	return Pushed{Digest: img.Manifest.Digest, Size: int64(len(body))}, nil
}

// siblings finds, for each blob, the other repositories of ref's registry
// whose images have it here: they may have it there, too.
func (s *Store) siblings(list []Image, ref Reference) map[string][]string {
	from := make(map[string][]string)
	for _, img := range list {
		var paths []string
		for _, name := range img.Names {
			other, err := ParseReference(name)
			if err == nil && other.Registry == ref.Registry && other.Path != ref.Path && !slices.Contains(paths, other.Path) {
				paths = append(paths, other.Path)
			}
		}
		if len(paths) == 0 {
			continue
		}
		m, err := s.Manifest(img)
		if err != nil {
			continue // a mount is only a shortcut
		}
		for _, d := range m.Layers {
			for _, path := range paths {
				if !slices.Contains(from[d.Digest], path) {
					from[d.Digest] = append(from[d.Digest], path)
				}
			}
		}
	}
	return from
}

// pushing is one Push under way.
type pushing struct {
	store *Store
	to    Target
	opts  PushOptions
	from  map[string][]string // paths of repositories, by digest
}

// maxMounts is how many repositories are asked for a blob.
const maxMounts = 3

func (p *pushing) blobs(ctx context.Context, m *Manifest) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(uploads)
	seen := make(map[string]bool)
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			sent, err := p.blob(ctx, d)
			if err != nil {
				return fmt.Errorf("blob %s: %w", ShortID(d.Digest), err)
			}
			if p.opts.Layer != nil && !isConfigType(d.MediaType) {
				p.opts.Layer(d.Digest, map[registry.Sent]LayerState{
					registry.Existed: LayerRemote, registry.Mounted: LayerMounted, registry.Uploaded: LayerPushed,
				}[sent])
			}
			return nil
		})
	}
	return group.Wait()
}

func (p *pushing) blob(ctx context.Context, d Descriptor) (registry.Sent, error) {
	file := p.store.blobPath(d.Digest)
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() != d.Size {
		return 0, hint.Errorf("pull or load the image again", "the store doesn't have it whole")
	}
	if err != nil {
		return 0, err
	}
	var add func(int64)
	end := func() {}
	defer func() { end() }()
	from := p.from[d.Digest]
	return p.to.Push(ctx, registry.Upload{
		Digest: d.Digest, Size: d.Size, From: from[:min(len(from), maxMounts)],
		Open: func(offset int64) (io.ReadCloser, error) {
			f, err := os.Open(file)
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(offset, io.SeekStart); err != nil {
				_ = f.Close()
				return nil, err
			}
			if add == nil {
				add, end = progress(p.opts.Progress, strings.TrimSpace(ShortID(d.Digest)), d.Size)
			}
			return &counted{f, add}, nil
		},
	})
}

// counted is a file that tells what is read of it.
type counted struct {
	*os.File
	add func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.File.Read(b)
	c.add(int64(n))
	return n, err
}

// WriteTo would go past Read.
func (c *counted) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// TagsOf lists the names that the store has in the repository of ref.
func (s *Store) TagsOf(ref Reference) ([]Reference, error) {
	idx, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var refs []Reference
	for _, img := range s.images(idx) {
		for _, name := range namesIn(img, ref.Repository()) {
			if one, err := ParseReference(name); err == nil && one.Tag != "" && one.Digest == "" {
				refs = append(refs, one)
			}
		}
	}
	slices.SortFunc(refs, func(a, b Reference) int { return strings.Compare(a.Tag, b.Tag) })
	return refs, nil
}
