package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nook/images/registry"
	"nook/internal/hint"
)

const (
	// downloads is how many layers come side by side: docker's number.
	downloads = 3
	// maxNested is how many indexes and manifests one pull reads.
	maxNested = 32
)

// Remote is a repository that images come from: *registry.Repository.
type Remote interface {
	Manifest(ctx context.Context, reference string, accept []string) (registry.Manifest, error)
	Blob(ctx context.Context, digest string, size, offset int64, w io.Writer) error
}

// PullOptions says what Pull chooses and who is told of it.
type PullOptions struct {
	// Platform, os/arch[/variant], is what an index is looked through for; ""
	// means this host's, and that an image of one platform is taken whatever
	// it is for.
	Platform string
	Progress Progress
	// Begun, if set, is called once it is known what there is to fetch.
	Begun func()
	// Layer, if set, is told what becomes of each layer's blob. It is called
	// from several goroutines.
	Layer func(digest string, state LayerState)
	// Unpack, if set, unpacks while layers arrive.
	Unpack ArrivingFunc
}

// LayerState is what became of a layer in a pull or push, in docker's words.
type LayerState string

// States of layers.
const (
	LayerExists     LayerState = "Already exists"
	LayerDownloaded LayerState = "Download complete"
	LayerRemote     LayerState = "Layer already exists"
	LayerMounted    LayerState = "Mounted"
	LayerPushed     LayerState = "Pushed"
)

// Arrival says how much of a layer's blob there is by now. What isn't Whole
// isn't verified either: nothing that was made of it may be used before the
// last arrival of its blob.
type Arrival struct {
	Digest string
	Size   int64
	Whole  bool
}

// ArrivingFunc is an UnpackFunc for layers that still arrive: their files grow,
// and each arrival says how far. The channel is closed once all are whole; an
// end of ctx means that they never will be.
type ArrivingFunc func(ctx context.Context, img Image, layers []Layer, arrivals <-chan Arrival) error

// Pulled is an image that came from a registry.
type Pulled struct {
	Image Image
	// Digest is of what the name means: an index, or the manifest.
	Digest string
	// Updated: the name meant something else before, or nothing.
	Updated bool
}

// Pull brings an image from a registry into the store. Blobs that are there
// are not fetched, others are, some at a time, and are held to digest and size
// while they are written; whoever unpacks can begin with the first bytes.
//
// What of a blob came before an interruption stays in .partial/ and is built on
// by the next pull. Two pulls of the same blob, in any processes, fetch it once:
// the second waits.
func (s *Store) Pull(ctx context.Context, from Remote, ref Reference, opts PullOptions) (Pulled, error) {
	pulled, err := s.pull(ctx, from, ref, opts)
	if errors.Is(err, errStale) {
		// What an earlier pull left was damaged: once more, from nothing.
		pulled, err = s.pull(ctx, from, ref, opts)
	}
	if err != nil {
		return Pulled{}, fmt.Errorf("pull %s: %w", ref.FamiliarTagged(), err)
	}
	return pulled, nil
}

// pulling is one Pull under way.
type pulling struct {
	store  *Store
	stage  *staging
	from   Remote
	opts   PullOptions
	want   Platform
	single bool
	reads  int // of manifests
	// index is the digest of the index that the name means; "": it means a
	// manifest.
	index string
	blobs []*incoming // each once, bottom layer first
	// suspects are blobs that the disk may have lost.
	suspects map[string]bool
}

func (s *Store) pull(ctx context.Context, from Remote, ref Reference, opts PullOptions) (Pulled, error) {
	want, err := parsePlatform(opts.Platform)
	if err != nil {
		return Pulled{}, err
	}
	stage, err := s.stage(ctx)
	if err != nil {
		return Pulled{}, err
	}
	defer stage.close()
	p := &pulling{store: s, stage: stage, from: from, opts: opts, want: want, single: opts.Platform == ""}
	c, err := p.candidate(ctx, ref)
	if err != nil {
		return Pulled{}, err
	}
	pulled := Pulled{Digest: c.desc.Digest}
	c.annotations = map[string]string{annotationSource: ref.Repository()}
	if p.index != "" {
		pulled.Digest = p.index
		c.annotations[annotationIndex] = p.index
	}
	if pulled.Updated, err = s.isNews(ref, c.desc.Digest); err != nil {
		return Pulled{}, err
	}
	if c.names, err = s.pulledNames(ref, c.desc.Digest); err != nil {
		return Pulled{}, err
	}
	p.plan(c.manifest.Layers)
	if p.suspects, err = s.ledger().Suspects(); err != nil {
		return Pulled{}, err
	}
	if opts.Begun != nil {
		opts.Begun()
	}
	list, err := stage.finish(ctx, []candidate{c}, p.bring)
	if err != nil {
		if ctx.Err() == nil && !registry.Temporary(err) {
			p.dropPartial()
		}
		return Pulled{}, err
	}
	p.dropPartial()
	pulled.Image = list[0]
	return pulled, nil
}

// isNews says whether the store has something else, or nothing, under ref.
func (s *Store) isNews(ref Reference, manifest string) (bool, error) {
	idx, err := s.readIndex()
	if err != nil {
		return false, err
	}
	img, found := findName(s.images(idx), ref)
	return !found || img.Manifest.Digest != manifest, nil
}

// pulledNames are the names that an image gets when ref is pulled. A digest
// becomes a name only where the image has no other in the repository.
func (s *Store) pulledNames(ref Reference, manifest string) ([]Reference, error) {
	if ref.Digest == "" {
		return []Reference{ref}, nil
	}
	idx, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	for _, img := range s.images(idx) {
		if img.Manifest.Digest == manifest && len(namesIn(img, ref.Repository())) > 0 {
			return nil, nil
		}
	}
	ref.Tag = ""
	return []Reference{ref}, nil
}

// manifestTypes are what a registry is offered to answer with.
func manifestTypes() []string {
	return []string{mediaTypeIndex, mediaTypeManifest, mediaTypeDockerList, mediaTypeDockerManifest}
}

// candidate fetches the manifest that ref means here, and its config.
func (p *pulling) candidate(ctx context.Context, ref Reference) (candidate, error) {
	reference := ref.Tag
	if ref.Digest != "" {
		reference = ref.Digest
	}
	if reference == ref.Digest {
		if err := checkDigest(reference); err != nil {
			return candidate{}, err
		}
	}
	m, err := p.read(ctx, reference)
	if err != nil {
		return candidate{}, err
	}
	if isIndexType(m.MediaType) {
		p.index = m.Digest
		if m, err = p.choose(ctx, m); err != nil {
			return candidate{}, err
		}
	}
	return p.image(ctx, m)
}

func (p *pulling) read(ctx context.Context, reference string) (registry.Manifest, error) {
	if p.reads++; p.reads > maxNested {
		return registry.Manifest{}, fmt.Errorf("the image's indexes list more than %d others to look at", maxNested)
	}
	m, err := p.from.Manifest(ctx, reference, manifestTypes())
	if err != nil {
		return m, err
	}
	if !isIndexType(m.MediaType) && !isManifestType(m.MediaType) {
		return m, foreignManifest(m)
	}
	return m, nil
}

func foreignManifest(m registry.Manifest) error {
	if bytes.Contains([]byte(m.MediaType), []byte("distribution.manifest.v1")) {
		return hint.Errorf("have it pushed again with a docker of 2016 or later",
			"%w: the image has docker's schema 1", ErrMediaType)
	}
	return fmt.Errorf("%w: manifest %q", ErrMediaType, shorten(m.MediaType))
}

// choose finds the manifest for the platform in an index, and in the indexes
// below it that don't say whom they are for.
func (p *pulling) choose(ctx context.Context, top registry.Manifest) (registry.Manifest, error) {
	entries, err := p.entries(ctx, top, 0)
	if err != nil {
		return top, err
	}
	best, bestRank := -1, 0
	var there []Platform
	for i, entry := range entries {
		platform := Platform{}
		if entry.Platform != nil {
			platform = *entry.Platform
		} else if len(entries) == 1 && p.single {
			platform = p.want // nothing to choose from: the config will tell
		}
		there = append(there, platform)
		if rank := p.want.rank(platform); rank > bestRank {
			best, bestRank = i, rank
		}
	}
	if best < 0 {
		return top, noPlatform(p.want, there)
	}
	m, err := p.read(ctx, entries[best].Digest)
	if err != nil {
		return top, err
	}
	if !isManifestType(m.MediaType) || m.MediaType != entries[best].MediaType {
		return top, fmt.Errorf("%w: %s is %q and the index says %q", ErrMediaType, m.Digest, shorten(m.MediaType), entries[best].MediaType)
	}
	return m, nil
}

// entries lists the image manifests of an index.
func (p *pulling) entries(ctx context.Context, m registry.Manifest, depth int) ([]Descriptor, error) {
	idx, err := parseIndex(m.Body)
	if err != nil {
		return nil, err
	}
	var list []Descriptor
	for _, entry := range idx.Manifests {
		switch {
		case entry.Annotations[annotationReferenceType] != "" || entry.ArtifactType != "":
		case isManifestType(entry.MediaType):
			list = append(list, entry)
		case isIndexType(entry.MediaType):
			if depth+1 == maxIndexDepth {
				return nil, fmt.Errorf("image indexes nest deeper than %d", maxIndexDepth)
			}
			below, err := p.read(ctx, entry.Digest)
			if err != nil {
				return nil, err
			}
			more, err := p.entries(ctx, below, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
		if len(list) > maxImages {
			return nil, fmt.Errorf("an image index lists more than %d images", maxImages)
		}
	}
	return list, nil
}

// image reads a manifest and fetches its config.
func (p *pulling) image(ctx context.Context, m registry.Manifest) (candidate, error) {
	c := candidate{desc: Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Body))}}
	var err error
	if c.manifest, err = parseManifest(m.Body, m.MediaType); err != nil {
		return candidate{}, err
	}
	if err := stackable(len(c.manifest.Layers)); err != nil {
		return candidate{}, err
	}
	data, err := p.config(ctx, c.manifest.Config)
	if err != nil {
		return candidate{}, fmt.Errorf("image config: %w", err)
	}
	if c.config, err = parseConfig(data); err != nil {
		return candidate{}, err
	}
	if platform := c.config.Platform(); !p.single && p.index == "" && p.want.rank(platform) == 0 {
		return candidate{}, noPlatform(p.want, []Platform{platform})
	}
	if _, err := layersOf(c.manifest, c.config, p.stage.pathOf); err != nil {
		return candidate{}, err
	}
	for _, body := range [][]byte{m.Body, data} {
		if _, err := p.stage.keepBytes(bytes.NewReader(body)); err != nil {
			return candidate{}, err
		}
	}
	return c, nil
}

func (p *pulling) config(ctx context.Context, d Descriptor) ([]byte, error) {
	if d.Size > maxJSON {
		return nil, fmt.Errorf("%w: it has %d bytes, over %d", registry.ErrSize, d.Size, maxJSON)
	}
	if data, err := p.store.readBlob(d.Digest); err == nil {
		return data, nil
	}
	var data bytes.Buffer
	if err := p.from.Blob(ctx, d.Digest, d.Size, 0, &data); err != nil {
		return nil, err
	}
	if got := digestOf(data.Bytes()); got != d.Digest {
		return nil, fmt.Errorf("%w: it has digest %s and should have %s", ErrDigest, got, d.Digest)
	}
	return data.Bytes(), nil
}

// plan lists the blobs to have, each once.
func (p *pulling) plan(layers []Descriptor) {
	for _, d := range layers {
		known := func(b *incoming) bool { return b.desc.Digest == d.Digest }
		if !slices.ContainsFunc(p.blobs, known) {
			p.blobs = append(p.blobs, &incoming{desc: d, path: p.stage.newPath()})
		}
	}
}

// bring fetches the layers and has them unpacked meanwhile. It is the
// UnpackFunc of the staging.
func (p *pulling) bring(ctx context.Context, img Image, layers []Layer) error {
	for i := range layers {
		for _, b := range p.blobs {
			if b.desc.Digest == layers[i].Digest {
				layers[i].BlobPath = b.path
			}
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	arrivals := make(chan Arrival)
	unpacked := make(chan error, 1)
	go func() {
		var err error
		if p.opts.Unpack != nil {
			err = p.opts.Unpack(ctx, img, layers, arrivals)
		}
		// Content that can't be unpacked may be content that isn't what its
		// digest promises: the downloads will tell. A full disk can't wait.
		var errno unix.Errno
		if errors.As(err, &errno) {
			cancel(err)
		}
		for range arrivals { // nobody else reads them any more
			continue
		}
		unpacked <- err
	}()
	err := p.fetchAll(ctx, arrivals)
	if err != nil {
		cancel(err)
	}
	close(arrivals)
	unpackErr := <-unpacked
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, unpackErr) && unpackErr != nil {
		return unpackErr
	}
	if err != nil {
		return err
	}
	if unpackErr != nil {
		return unpackErr
	}
	return p.checkPlain(layers)
}

// checkPlain holds layers that aren't packed to their diff ids, also where
// nobody unpacked.
func (p *pulling) checkPlain(layers []Layer) error {
	for i, l := range layers {
		if err := checkPlainLayer(staged{digest: l.Digest}, l); err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return nil
}

func (p *pulling) fetchAll(ctx context.Context, arrivals chan<- Arrival) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	for _, b := range p.blobs {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := p.fetch(ctx, b, arrivals); err != nil {
				return fmt.Errorf("layer %s: %w", ShortID(b.desc.Digest), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, b := range p.blobs {
		p.stage.keep(staged{path: b.path, digest: b.desc.Digest, size: b.desc.Size})
	}
	return nil
}
