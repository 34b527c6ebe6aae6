// Package unxz reads .xz files, as the specification 1.2.1 of the format has
// them (https://tukaani.org/xz/xz-file-format.txt):
//
//	r, err := unxz.NewReader(f)
//
// The algorithm is that of ulikunitz/xz/lzma; only what is around it is ours,
// as ulikunitz/xz makes a table of 32 KiB whenever a program starts. LZMA2 is
// the one filter that it knows; those for machine code are refused.
package unxz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// ErrDamaged is wrapped by all errors of what isn't as xz writes it.
var ErrDamaged = errors.New("the xz stream is damaged")

// mostDictionary is what a file may ask for: four times what xz -9 does.
const mostDictionary = 256 << 20

const (
	magic       = "\xfd7zXZ\x00"
	footerMagic = "YZ"
	filterLZMA2 = 0x21
)

// NewReader reads the header of the first stream. All that follow are read as
// one, as xz does.
func NewReader(in io.Reader) (io.Reader, error) {
	r := &reader{in: &counter{in: bufio.NewReader(in)}}
	if err := r.header(); err != nil {
		return nil, unexpected(err)
	}
	return r, nil
}

// counter counts what is read.
type counter struct {
	in *bufio.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.in.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// record is what the index says of a block: its size without padding, and
// that of its data.
type record struct{ packed, plain uint64 }

type reader struct {
	in      *counter
	flags   [2]byte
	records []record

	block *lzma.Reader2 // nil between blocks
	begin int64         // where its header begins
	plain int64
	sum   hash.Hash

	err error
}

func damaged(what string) error { return fmt.Errorf("%w: %s", ErrDamaged, what) }

// unexpected is err, where an end isn't the file's.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("xz stream: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// Read gives the data of all blocks.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil {
		if r.block == nil {
			if r.err = r.next(); r.err != nil && r.err != io.EOF { //nolint:errorlint // its own
				r.err = unexpected(r.err)
			}
			continue
		}
		n, err := r.block.Read(p)
		_, _ = r.sum.Write(p[:n])
		r.plain += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			if err = r.endBlock(); err != nil {
				r.err = unexpected(err)
			}
		case errors.Is(err, io.ErrUnexpectedEOF):
			r.err = unexpected(err)
		case err != nil:
			r.err = damaged(err.Error())
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// header reads the header of a stream.
func (r *reader) header() error {
	var h [12]byte
	if _, err := io.ReadFull(r.in, h[:]); err != nil {
		return err
	}
	if string(h[:6]) != magic || crc32.ChecksumIEEE(h[6:8]) != binary.LittleEndian.Uint32(h[8:]) {
		return damaged("its header is none")
	}
	r.flags = [2]byte{h[6], h[7]}
	r.records = nil
	_, err := r.newSum()
	return err
}

// newSum is the check of a block; the format has its size at hand for those
// that nobody knows, and nobody writes.
func (r *reader) newSum() (hash.Hash, error) {
	switch r.flags {
	case [2]byte{0, 0}:
		return none{}, nil
	case [2]byte{0, 1}:
		return crc32.NewIEEE(), nil
	case [2]byte{0, 4}:
		return crc64.New(crc64.MakeTable(crc64.ECMA)), nil
	case [2]byte{0, 10}:
		return sha256.New(), nil
	}
	return nil, fmt.Errorf("xz stream: its check %#x is not known", r.flags)
}

// none is the check of a file without.
type none struct{}

func (none) Write(p []byte) (int, error) { return len(p), nil }
func (none) Sum(b []byte) []byte         { return b }
func (none) Reset()                      {}
func (none) Size() int                   { return 0 }
func (none) BlockSize() int              { return 1 }

// next begins a block, or reads the rest of a stream and begins another. It is
// io.EOF where there is none.
func (r *reader) next() error {
	r.begin = r.in.n
	size, err := r.in.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if size != 0 {
		return unexpected(r.beginBlock(size))
	}
	if err := r.index(); err != nil {
		return unexpected(err)
	}
	// Padding of zeros, four at once, may be between streams and at the end.
	for {
		head, err := r.in.in.Peek(4)
		switch {
		case len(head) == 0 && errors.Is(err, io.EOF):
			return io.EOF
		case err != nil:
			return unexpected(err)
		case !bytes.Equal(head, make([]byte, 4)):
			return unexpected(r.header())
		}
		_, _ = r.in.in.Discard(4)
	}
}

// beginBlock reads a block's header (3.1 of the specification).
func (r *reader) beginBlock(size byte) error {
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if _, err := io.ReadFull(r.in, h[1:]); err != nil {
		return err
	}
	body := h[:len(h)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(h[len(h)-4:]) {
		return damaged("the checksum of a block's header is wrong")
	}
	flags, rest := body[1], bytes.NewReader(body[2:])
	if flags&0x3f != 0 {
		return errors.New("xz stream: a filter that is not supported, or more than one")
	}
	for _, there := range []byte{0x40, 0x80} { // sizes, which the index has, too
		if flags&there != 0 {
			if _, err := binary.ReadUvarint(rest); err != nil {
				return damaged("a block's header")
			}
		}
	}
	var filter [3]byte // id, size of its properties, the dictionary's size
	if _, err := io.ReadFull(rest, filter[:]); err != nil {
		return damaged("a block's header")
	}
	if filter[0] != filterLZMA2 || filter[1] != 1 || filter[2] > 40 {
		return errors.New("xz stream: a filter that is not supported")
	}
	bits := filter[2]
	dictionary := int64(2|bits&1) << (bits/2 + 11)
	if dictionary > mostDictionary {
		return fmt.Errorf("xz stream: it asks for a dictionary of %d MiB, and %d are allowed", dictionary>>20, mostDictionary>>20)
	}
	block, err := lzma.Reader2Config{DictCap: int(dictionary)}.NewReader2(r.in)
	if err != nil {
		return err
	}
	r.block, r.plain = block, 0
	r.sum, err = r.newSum()
	return err
}

// endBlock reads what comes after a block's data.
func (r *reader) endBlock() error {
	r.block = nil
	packed := r.in.n - r.begin
	if err := r.zeros(packed); err != nil {
		return err
	}
	want := make([]byte, r.sum.Size())
	if _, err := io.ReadFull(r.in, want); err != nil {
		return err
	}
	got := r.sum.Sum(nil)
	if len(got) < sha256.Size { // the CRCs are written the other way round
		for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
			got[i], got[j] = got[j], got[i]
		}
	}
	if !bytes.Equal(got, want) {
		return damaged("the checksum of a block is wrong")
	}
	r.records = append(r.records, record{uint64(packed) + uint64(len(want)), uint64(r.plain)})
	return nil
}

// zeros reads the padding after so many bytes.
func (r *reader) zeros(after int64) error {
	for ; after%4 != 0; after++ {
		if b, err := r.in.ReadByte(); err != nil || b != 0 {
			return errors.Join(err, damaged("its padding"))
		}
	}
	return nil
}

// index reads the index, whose first byte was read, and the footer.
func (r *reader) index() error {
	sum := crc32.NewIEEE()
	_, _ = sum.Write([]byte{0})
	in := &summed{r.in, sum}
	count, err := binary.ReadUvarint(in)
	if err != nil {
		return err
	}
	if count != uint64(len(r.records)) {
		return damaged("its index has another number of blocks")
	}
	for _, want := range r.records {
		packed, err := binary.ReadUvarint(in)
		if err != nil {
			return err
		}
		plain, err := binary.ReadUvarint(in)
		if err != nil {
			return err
		}
		if (record{packed, plain}) != want {
			return damaged("its index has other sizes")
		}
	}
	for (r.in.n-r.begin)%4 != 0 {
		if b, err := in.ReadByte(); err != nil || b != 0 {
			return errors.Join(err, damaged("its padding"))
		}
	}
	size := r.in.n - r.begin + 4
	var end [16]byte // the index's CRC32; the footer: CRC32, the index's size, flags, magic
	if _, err := io.ReadFull(r.in, end[:]); err != nil {
		return err
	}
	word := binary.LittleEndian.Uint32
	if word(end[:]) != sum.Sum32() || word(end[4:]) != crc32.ChecksumIEEE(end[8:14]) ||
		(int64(word(end[8:]))+1)*4 != size || [2]byte(end[12:14]) != r.flags || string(end[14:]) != footerMagic {
		return damaged("its index or footer")
	}
	return nil
}

// summed is a ByteReader with a checksum.
type summed struct {
	in  *counter
	sum hash.Hash32
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.in.ReadByte()
	if err == nil {
		_, _ = s.sum.Write([]byte{b})
	}
	return b, err
}
