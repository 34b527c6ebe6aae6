package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"nook/images/layers"
	"nook/internal/hint"
)

// ImportOptions says what image Import makes of a root filesystem.
type ImportOptions struct {
	// Path is a tar file, which may be packed with gzip or zstd; "" means
	// Input, which is read to its end.
	Path  string
	Input io.Reader
	// Name is what the image is called; "" leaves it without a name.
	Name string
	// Config is how the image runs.
	Config ContainerConfig
	// Platform is os/arch[/variant]; "" means this host's.
	Platform string
	// Message stands in the image's history.
	Message string
	// Created is when the image was made; zero means now. The same content
	// with the same Created is the same image.
	Created time.Time
	// Annotations go on the image's entry in the index: see Annotate.
	Annotations map[string]string
	Progress    Progress
	Unpack      UnpackFunc
}

// Import makes an image of one layer from a tar archive of a root filesystem.
// The layer is stored as it came.
func (s *Store) Import(ctx context.Context, opts ImportOptions) (Image, error) {
	label := opts.Path
	if label == "" {
		label = "standard input"
	}
	img, err := s.importTar(ctx, opts)
	if err != nil {
		return Image{}, fmt.Errorf("import %s: %w", label, withoutPath(err, opts.Path))
	}
	return img, nil
}

func (s *Store) importTar(ctx context.Context, opts ImportOptions) (Image, error) {
	var names []Reference
	if opts.Name != "" {
		ref, err := parseTarget(opts.Name)
		if err != nil {
			return Image{}, err
		}
		names = []Reference{ref}
	}
	platform, err := parsePlatform(opts.Platform)
	if err != nil {
		return Image{}, err
	}
	if err := checkAnnotations(opts.Annotations); err != nil {
		return Image{}, err
	}
	in, err := openInput(ctx, opts.Path, opts.Input)
	if err != nil {
		return Image{}, err
	}
	defer in.close()
	if in.root != nil {
		return Image{}, hint.Errorf("pack it: tar -C DIR -c . | nook import - NAME", "is a directory")
	}
	stage, err := s.stage(ctx)
	if err != nil {
		return Image{}, err
	}
	defer stage.close()

	add, end := progress(opts.Progress, "reading", in.size)
	file, err := stage.write(watched(ctx, in.stream, add))
	end()
	if err != nil {
		return Image{}, err
	}
	layer, diffID, err := rootfsLayer(ctx, file)
	if err != nil {
		return Image{}, err
	}
	stage.keep(file)
	c, err := stage.singleLayer(opts, platform, layer, diffID)
	if err != nil {
		return Image{}, err
	}
	c.names, c.annotations = names, opts.Annotations
	list, err := stage.finish(ctx, []candidate{c}, opts.Unpack)
	if err != nil {
		return Image{}, err
	}
	return list[0], nil
}

// rootfsLayer describes a file as a layer.
func rootfsLayer(ctx context.Context, file staged) (d Descriptor, diffID string, err error) {
	head, err := readHead(file.path)
	if err != nil {
		return d, "", err
	}
	d = Descriptor{MediaType: layerTypeOf(head), Digest: file.digest, Size: file.size}
	switch {
	case d.MediaType == mediaTypeLayer && isTar(head):
		return d, file.digest, nil
	case d.MediaType == "" || d.MediaType == mediaTypeLayer:
		return d, "", foreignRootfs(head)
	}
	f, err := os.Open(file.path)
	if err != nil {
		return d, "", err
	}
	defer f.Close()
	plain, _, err := layers.Decompress(watched(ctx, f, func(int64) {}))
	if err != nil {
		return d, "", damaged(err)
	}
	defer plain.Close()
	// The first block tells whether what was packed is a tar archive at all.
	head = make([]byte, 512)
	n, err := io.ReadFull(plain, head)
	if head = head[:n]; !isTar(head) {
		if ctx.Err() != nil {
			return d, "", ctx.Err()
		}
		return d, "", foreignRootfs(head)
	}
	sum := newHashWriter()
	_, _ = sum.Write(head)
	if err == nil {
		err = copyAll(sum, plain)
	}
	if err != nil {
		return d, "", damaged(err)
	}
	return d, sum.digest(), nil
}

func foreignRootfs(head []byte) error {
	const advice = "nook import reads a tar archive of a root filesystem, plain or packed with gzip or zstd"
	if what := whatIs(head); what != "" {
		return hint.Errorf(advice, "not a tar archive but %s", what)
	}
	return hint.Errorf(advice, "not a tar archive")
}

// singleLayer writes the config and the manifest of an image of one layer.
func (g *staging) singleLayer(opts ImportOptions, p Platform, layer Descriptor, diffID string) (candidate, error) {
	created := opts.Created.UTC()
	if opts.Created.IsZero() {
		created = time.Now().UTC()
	}
	cfg := &ImageConfig{
		Created: &created, Architecture: p.Architecture, Variant: p.Variant, OS: p.OS,
		Config:  opts.Config,
		RootFS:  RootFS{Type: "layers", DiffIDs: []string{diffID}},
		History: []History{{Created: &created, CreatedBy: "nook import", Comment: opts.Message}},
	}
	file, err := g.keepJSON(cfg)
	if err != nil {
		return candidate{}, fmt.Errorf("write image config: %w", err)
	}
	m := &Manifest{
		SchemaVersion: 2, MediaType: mediaTypeManifest,
		Config: Descriptor{MediaType: mediaTypeConfig, Digest: file.digest, Size: file.size},
		Layers: []Descriptor{layer},
	}
	if file, err = g.keepJSON(m); err != nil {
		return candidate{}, fmt.Errorf("write manifest: %w", err)
	}
	return candidate{
		desc:     Descriptor{MediaType: mediaTypeManifest, Digest: file.digest, Size: file.size},
		manifest: m, config: cfg,
	}, nil
}
