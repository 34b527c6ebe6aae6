package layers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"nook/internal/hint"
)

// A few bytes can stand for any number: by packing, which makes a thousand
// bytes of one with gzip and a million with zstd, and by sparse files. What is
// refused is what no image has that somebody made to be used:
//
//   - a packed stream that is over bombBytes long and, up to any point of it,
//     over bombRatio times as long as it was packed. Debian packs at 3 to 1, text
//     at 10; a file of zeros alone comes over 200. What is packed once is never
//     packed again, so one stream is all there is;
//   - sparse files of over maxSparse bytes in a layer.
//
// What isn't packed is as long as it is, and is let through.
const (
	bombRatio = 200
	bombBytes = 1 << 30
	maxSparse = 64 << 30
)

// ErrBomb says that a stream unpacks to far more than it is.
var ErrBomb = errors.New("it unpacks to far more than it is")

// fuse counts what goes into a decoder and what comes out.
type fuse struct {
	in, out int64
	floor   int64 // bombBytes, less in tests
}

// count is r with what is read of it counted.
func (f *fuse) count(r io.Reader) io.Reader { return &fused{r, f} }

type fused struct {
	r io.Reader
	f *fuse
}

func (c *fused) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.f.in += int64(n)
	return n, err
}

// grown notes n bytes more that came out.
func (f *fuse) grown(n int) error {
	f.out += int64(n)
	if f.out <= f.floor || f.out <= bombRatio*f.in {
		return nil
	}
	return hint.Errorf("if you trust it all the same, bring it without packing: skopeo copy docker://IMAGE docker-archive:FILE, nook load -i FILE",
		"%w: %d MiB came of %d KiB, over %d to 1", ErrBomb, f.out>>20, f.in>>10, bombRatio)
}

// sparse counts the length of a sparse file, before anything of it is read.
func (l *Layer) sparse(h *tar.Header) error {
	is := h.Typeflag == tar.TypeGNUSparse
	for record := range h.PAXRecords {
		is = is || strings.HasPrefix(record, "GNU.sparse.")
	}
	if !is {
		return nil
	}
	if h.Size > maxSparse-l.holes {
		return fmt.Errorf("%w: its sparse files are over %d GiB long", ErrBomb, maxSparse>>30)
	}
	l.holes += h.Size
	return nil
}
