// Package images keeps images: a store of manifests, configs and layer blobs
// under their digests, and the ways in and out of it.
//
//	store, err := images.Open(filepath.Join(root, "images"))
//	loaded, err := store.Load(ctx, images.LoadOptions{Path: "busybox.tar", Unpack: unpack})
//	img, err := store.Resolve("busybox")
//	cfg, err := store.Config(img)
//
// The store is an OCI image layout (image-layout.md of the specification), so
// that skopeo and umoci read it as it is:
//
//	oci-layout          the version of the layout
//	index.json          an entry a name; images without one have one entry without a name
//	blobs/sha256/HEX    manifests, configs, layers as they came
//	.lock               held while index.json or blobs/ change
//	.partial/HEX        what of a blob came from a registry so far: partial.go
//	.unsynced/          which blobs the disk may not have: lazy.go
//	.staging/N/         what is on its way in; flock(2) on N/lock while its owner lives
//
// What a list of images shows is cached in the annotations of index.json,
// which is replaced as a whole: readers take no lock and see the old state or
// the new one. Blobs move into blobs/ by rename, under the lock, right before
// the index that refers to them is written.
//
// The package unpacks nothing: where layers become directories, the caller
// hands in a function. Images come from and go to registries by the package
// registry; no process is started here.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"nook/internal/atomicfile"
	"nook/internal/lockfile"
)

var (
	// ErrNotFound says that no image has the name or ID.
	ErrNotFound = errors.New("no such image")
	// ErrAmbiguous says that more than one image has an ID with this prefix.
	ErrAmbiguous = errors.New("more than one image")
	// ErrInUse says that containers or other names hold an image.
	ErrInUse = errors.New("image is in use")
	// ErrNotArchive says that what was given isn't an image archive.
	ErrNotArchive = errors.New("not an image archive")
	// ErrTruncated says that an archive ends too early.
	ErrTruncated = errors.New("the archive is cut short")
	// ErrDigest says that content isn't what its digest or size promised.
	ErrDigest = errors.New("the content does not match")
	// ErrMediaType says that a part of an image has a type nook doesn't know.
	ErrMediaType = errors.New("unknown media type")
	// ErrPlatform says that an image is for another kind of machine.
	ErrPlatform = errors.New("wrong platform")
)

const (
	layoutFile    = "oci-layout"
	layoutVersion = "1.0.0"
	indexFile     = "index.json"
	lockFile      = ".lock"
	stagingDir    = ".staging"
	unsyncedDir   = ".unsynced"
	blobsDir      = "blobs/sha256"

	// maxJSON is above every real manifest (registries stop at 4 MiB) and far
	// below what would hurt.
	maxJSON = 8 << 20
)

// Store is the image store in one directory. It holds no state of its own:
// any number of processes may have it open.
type Store struct {
	dir string
	// boot is the id of this boot: "" for the kernel's word, another in tests.
	boot string
}

// Image is one image of the store.
type Image struct {
	// ID is the digest of the config, as docker counts images.
	ID string
	// Manifest describes the manifest blob.
	Manifest Descriptor
	// Names are full references in their order of age; none for an image that
	// lost its name to another.
	Names []string
	// Created is when the image says it was made; zero when it doesn't.
	Created time.Time
	// Size is in bytes, of the layers as they are stored.
	Size int64
	// UnpackedSize is in bytes, of the layers' files, as docker counts; 0 when
	// nobody counted.
	UnpackedSize int64
	// Indexes are the digests of the indexes that its names meant when they
	// were pulled.
	Indexes []string
	// Sources are the repositories that it was pulled from.
	Sources []string
	// Annotations are those set on the entry with Annotate or Import.
	Annotations map[string]string
}

// Layer is one layer of an image, the bottom one being the first.
type Layer struct {
	BlobPath  string
	Digest    string // of the blob
	MediaType string
	Size      int64  // of the blob
	DiffID    string // digest of the uncompressed tar
	// From is the repository that the blob came from; "" when it isn't known.
	From string
	// Known says that the blob was compared with DiffID before: the store has
	// an image with both.
	Known bool
	// Own says that the blob was packed here, of what is there: see
	// layers.Source.
	Own bool
	// UnpackedSize is for the Unpack function to set: bytes of the layer's
	// files; negative: not known. Once all layers have one, the store keeps the
	// sum.
	UnpackedSize int64
}

// Open opens the store in dir and makes it when it isn't there.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	if _, err := os.Lstat(s.path(indexFile)); err == nil {
		return s, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := s.create(); err != nil {
		return nil, fmt.Errorf("make image store %s: %w", dir, err)
	}
	return s, nil
}

// create ends with index.json, by which Open knows that the rest is there.
func (s *Store) create() error {
	if err := os.MkdirAll(s.path(blobsDir), 0o700); err != nil {
		return err
	}
	unlock, err := s.lock(context.Background())
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Lstat(s.path(indexFile)); err == nil {
		return nil
	}
	layout := struct {
		Version string `json:"imageLayoutVersion"`
	}{layoutVersion}
	if err := atomicfile.WriteJSON(s.path(layoutFile), layout, 0o600, atomicfile.Durable); err != nil {
		return err
	}
	return s.writeIndex(&index{})
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// blobPath is for digests that checkDigest has seen.
func (s *Store) blobPath(digest string) string {
	return filepath.Join(s.dir, blobsDir, hexOf(digest))
}

func (s *Store) lock(ctx context.Context) (unlock func(), err error) {
	return lockfile.Lock(ctx, s.path(lockFile))
}

// List returns all images, the one that came last being the last.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	idx, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	return s.images(idx), nil
}

// Manifest reads the manifest of img.
func (s *Store) Manifest(img Image) (*Manifest, error) {
	data, err := s.readBlob(img.Manifest.Digest)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return parseManifest(data, img.Manifest.MediaType)
}

// Config reads the config of img.
func (s *Store) Config(img Image) (*ImageConfig, error) {
	data, err := s.readBlob(img.ID)
	if err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	return parseConfig(data)
}

// Layers lists the layers of img.
func (s *Store) Layers(img Image) ([]Layer, error) {
	m, err := s.Manifest(img)
	if err != nil {
		return nil, err
	}
	cfg, err := s.Config(img)
	if err != nil {
		return nil, err
	}
	return layersOf(m, cfg, s.blobPath)
}

func layersOf(m *Manifest, cfg *ImageConfig, pathOf func(digest string) string) ([]Layer, error) {
	if len(m.Layers) != len(cfg.RootFS.DiffIDs) {
		return nil, fmt.Errorf("%w: the manifest has %d layers, the config %d diff ids",
			ErrDigest, len(m.Layers), len(cfg.RootFS.DiffIDs))
	}
	list := make([]Layer, len(m.Layers))
	for i, l := range m.Layers {
		list[i] = Layer{
			BlobPath: pathOf(l.Digest), Digest: l.Digest, MediaType: l.MediaType,
			Size: l.Size, DiffID: cfg.RootFS.DiffIDs[i], UnpackedSize: -1,
		}
	}
	return list, nil
}

// maxLayers is how many overlayfs stacks (fs/overlayfs/params.h).
const maxLayers = 500

// stackable refuses an image of which no container could start.
func stackable(layers int) error {
	if layers > maxLayers {
		return fmt.Errorf("the image has %d layers, more than the %d that overlayfs stacks", layers, maxLayers)
	}
	return nil
}

// readBlob reads a JSON blob. It is small, so it is held to its digest each
// time: a damaged disk is told from a damaged image.
func (s *Store) readBlob(digest string) ([]byte, error) {
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	data, err := readJSONFile(s.blobPath(digest))
	if err != nil {
		return nil, err
	}
	if got := digestOf(data); got != digest {
		return nil, fmt.Errorf("%w: blob %s of the store has digest %s", ErrDigest, digest, got)
	}
	return data, nil
}

// readJSONFile reads a file that should be of the size of JSON.
func readJSONFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxJSON {
		return nil, fmt.Errorf("is larger than %d MiB", maxJSON>>20)
	}
	return data, nil
}
