package layers

import (
	"cmp"
	"io"

	"nook/internal/hint"
	"nook/internal/treetar"
)

// A few bytes can stand for any number: by packing, which makes a thousand
// bytes of one with gzip and a million with zstd, and by sparse files. What is
// refused is what no image has that somebody made to be used:
//
//   - a packed stream that is over bombBytes long and, up to any point of it,
//     over bombRatio times as long as it was packed. Debian packs at 3 to 1, text
//     at 10; a file of zeros alone comes over 200. What is packed once is never
//     packed again, so one stream is all there is;
//   - sparse files of over treetar.MaxSparse bytes in a layer.
//
// What isn't packed is as long as it is, and is let through. The same holds for
// the contexts and archives that a build takes. What nook itself packs is never
// packed as tightly as that: images/packer.go.
const (
	bombRatio = 200
	bombBytes = 1 << 30
)

// ErrBomb says that a stream unpacks to far more than it is.
var ErrBomb = treetar.ErrBomb

// What helps against ErrBomb.
const (
	trustImage   = "if you trust it all the same, bring it without packing: skopeo copy docker://IMAGE docker-archive:FILE, nook load -i FILE"
	trustArchive = "if you trust it all the same, unpack it first: a tar archive that isn't packed is taken as it is"
)

// fuse counts what goes into a decoder and what comes out.
type fuse struct {
	in, out int64
	floor   int64  // bombBytes, less in tests
	advice  string // "" is that for images
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
	return hint.Errorf(cmp.Or(f.advice, trustImage),
		"%w: %d MiB came of %d KiB, over %d to 1", ErrBomb, f.out>>20, f.in>>10, bombRatio)
}

// guarded is a decoder that stops where the fuse does.
type guarded struct {
	r    io.Reader
	kind Compression
	f    *fuse
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if tooMuch := g.f.grown(n); tooMuch != nil {
		err = tooMuch
	}
	if err != nil && err != io.EOF { //nolint:errorlint // the decoders' plain end
		err = packedError(g.kind, err)
	}
	return n, err
}
