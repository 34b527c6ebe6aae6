package layers

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"

	"nook/internal/hint"
)

// Source is a layer to unpack.
type Source struct {
	// DiffID is the digest of the unpacked stream, "sha256:…".
	DiffID string
	// Path is the blob, packed or not.
	Path string `json:",omitempty"`
	// Open gives the blob instead of Path.
	Open func() (io.ReadCloser, error) `json:"-"`
	// Blob is the digest of the blob, From the repository it came from; "" when
	// nobody knows.
	Blob, From string `json:",omitempty"`
	// Known says that the blob was compared with DiffID before.
	Known bool `json:",omitempty"`
	// Own says that we packed it: what it unpacks to is what was there, however
	// much that is.
	Own bool `json:",omitempty"`
}

// Report is told how many bytes more of a layer's blob were read. It is called
// from several goroutines.
type Report func(diffID string, read int64)

func (s *Source) open() (io.ReadCloser, error) {
	if s.Open != nil {
		return s.Open()
	}
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return f, nil
}

// counter tells what passes.
type counter struct {
	cancelled
	tell func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.cancelled.Read(p)
	if n > 0 {
		c.tell(int64(n))
	}
	return n, err
}

// readBlob unpacks a source, hands it to read, and compares it with its diff id.
func (u *unpacking) readBlob(ctx context.Context, i int, read func(io.Reader) error) error {
	src := &u.sources[i]
	blob, err := src.open()
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }()
	counted := &counter{cancelled{ctx, blob}, func(n int64) { u.report(src.DiffID, n) }}
	limit := &fuse{floor: u.store.bomb}
	if src.Own {
		limit.floor = math.MaxInt64
	}
	stream, _, err := decompressUpTo(counted, true, limit)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	if err := read(stream); err != nil {
		return err
	}
	if got := stream.diffID(); got != src.DiffID {
		return hint.Errorf("the image is damaged: load or pull it again",
			"the layer's content has the digest %s, and the image says %s", got, src.DiffID)
	}
	return nil
}
