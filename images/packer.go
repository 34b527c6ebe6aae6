package images

import (
	"io"

	"github.com/klauspost/compress/gzip"
)

// packer is a gzip writer whose output is no bomb to anybody (layers.ErrBomb):
// a disk image that is all hole is something that somebody made to be used, and
// an image that was saved or pushed comes back. From begin on it packs no tighter
// than packRatio to 1: each time that it would, the next packBlock bytes stand in
// it as they are, in a gzip member of their own (RFC 1952, 2.2). That takes a
// hundredth of the zeros, and no other layer is packed another way for it.
//
// The same stream gives the same bytes, however it is cut into writes.
type packer struct {
	out   tally
	z     *gzip.Writer
	in    int64
	begin int64 // packFrom, less in tests
	loose bool
}

const (
	// packRatio is half of what is refused, and packFrom half of the length up
	// to which nothing is.
	packRatio = 100
	packFrom  = 512 << 20
	packBlock = 1 << 20
)

// tally counts what passes.
type tally struct {
	w io.Writer
	n int64
}

func (t *tally) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	t.n += int64(n)
	return n, err
}

func newPacker(w io.Writer, begin int64) (*packer, error) {
	p := &packer{out: tally{w: w}, begin: begin}
	var err error
	p.z, err = gzip.NewWriterLevel(&p.out, packLevel)
	return p, err
}

func (p *packer) Write(b []byte) (n int, err error) {
	for n < len(b) {
		into := p.in % packBlock
		if into == 0 && p.in >= p.begin {
			if err := p.turn(p.in > packRatio*p.out.n); err != nil {
				return n, err
			}
		}
		part := b[n:min(int64(len(b)), int64(n)+packBlock-into)]
		m, err := p.z.Write(part)
		n += m
		p.in += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// turn begins a member of the other kind, if it is to be another.
func (p *packer) turn(loose bool) error {
	if loose == p.loose {
		return nil
	}
	if err := p.z.Close(); err != nil {
		return err
	}
	level := packLevel
	if loose {
		level = gzip.NoCompression
	}
	var err error
	p.z, err = gzip.NewWriterLevel(&p.out, level)
	p.loose = loose
	return err
}

func (p *packer) Close() error { return p.z.Close() }
