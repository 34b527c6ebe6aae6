package layers

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"nook/internal/hint"
	"nook/internal/unxz"
)

// Compression is how a stream was packed.
type Compression string

// What Decompress knows, in the words of the OCI media types.
const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"

	// Of archives alone: no layer is packed so.
	bzip2Packed Compression = "bzip2"
	xzPacked    Compression = "xz"
)

const (
	// inputBuffer is what is asked of the blob at once.
	inputBuffer = 256 << 10
	// maxWindow is the most memory that a zstd frame may ask for. The format
	// recommends that decoders take 8 MiB (RFC 8878, 3.1.1.1.2); zstd's own
	// command makes and takes up to 128 MiB.
	maxWindow = 128 << 20
)

// Decompress reads a tar stream that is packed with gzip or zstd, or not
// packed: the first bytes tell. It is unpacked in a goroutine of its own,
// ahead of the reader; Close ends that one. A stream that is none of the three
// is refused here, one that is damaged or cut off by Read.
//
// Reading ends with io.EOF only if all checksums of the packing were right, and
// with ErrBomb where it goes on and on.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return decompress(r, false)
}

func decompress(r io.Reader, hash bool) (*stream, Compression, error) {
	return decompressUpTo(r, hash, &fuse{floor: bombBytes})
}

func decompressUpTo(r io.Reader, hash bool, limit *fuse) (*stream, Compression, error) {
	in := bufio.NewReaderSize(limit.count(r), inputBuffer)
	kind, err := sniff(in)
	if err != nil {
		return nil, kind, err
	}
	if kind == Uncompressed {
		return newStream(in, kind, nil, func() {}, hash), kind, nil
	}
	unpacked, done, err := decoder(in, kind)
	if err != nil {
		return nil, kind, err
	}
	return newStream(unpacked, kind, limit, done, hash), kind, nil
}

// decoder takes a packing off. done lets go of what it holds.
func decoder(in io.Reader, kind Compression) (unpacked io.Reader, done func(), err error) {
	done = func() {}
	switch kind {
	case Gzip:
		unpacked, err = gzip.NewReader(in)
	case Zstd:
		// Concurrency 1 is the synchronous decoder: who reads ahead has a
		// goroutine for it.
		var z *zstd.Decoder
		z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderLowmem(true))
		if err == nil {
			unpacked, done = z, z.Close
		}
	case bzip2Packed:
		unpacked = bzip2.NewReader(in)
	case xzPacked:
		unpacked, err = unxz.NewReader(in)
	default:
		unpacked = in
	}
	if err != nil {
		return nil, nil, packedError(kind, err)
	}
	return unpacked, done, nil
}

// foreign are packings that images had or that people try, and nook doesn't
// read: the message can at least name them.
var foreign = []struct{ name, magic string }{
	{"bzip2", "BZh"},
	{"xz", "\xfd7zXZ\x00"},
	{"lz4", "\x04\x22\x4d\x18"},
	{"compress", "\x1f\x9d"},
	{"zip", "PK\x03\x04"},
}

func sniff(in *bufio.Reader) (Compression, error) {
	head, err := in.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the tar stream: %w", err)
	}
	switch {
	case len(head) == 0:
		return "", errors.New("read the tar stream: the stream is empty")
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return Gzip, nil
	case isZstd(head):
		return Zstd, nil
	case isTar(head):
		return Uncompressed, nil
	}
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return "", hint.Errorf("pack it with gzip or zstd", "read the tar stream: packed with %s, which is not supported", f.name)
		}
	}
	return "", errors.New("read the tar stream: neither gzip, zstd nor tar")
}

// isZstd knows a frame and a skippable frame, with which a stream may begin
// (RFC 8878, 3.1).
func isZstd(head []byte) bool {
	if len(head) < 4 {
		return false
	}
	magic := binary.LittleEndian.Uint32(head)
	return magic == 0xFD2FB528 || magic&0xFFFFFFF0 == 0x184D2A50
}

// isTar says whether a first block of 512 bytes may begin a tar stream:
// archive/tar checks its checksum. An error of a later block, which an
// extended header asks for, says that the first was one.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// packingError is an error of the packing around a tar stream.
type packingError struct{ error }

func (e *packingError) Unwrap() error { return e.error }

// packedError says in plain words what the decoders' errors mean.
func packedError(kind Compression, err error) error {
	switch {
	case kind == Uncompressed, errors.Is(err, ErrBomb):
		return fmt.Errorf("read the tar stream: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		err = fmt.Errorf("read the tar stream: %s stream is cut off: %w", kind, io.ErrUnexpectedEOF)
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, zstd.ErrCRCMismatch):
		err = fmt.Errorf("read the tar stream: %s stream is damaged: its checksum is wrong: %w", kind, err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = fmt.Errorf("read the tar stream: %s stream wants over %d MiB of memory: %w", kind, maxWindow>>20, err)
	default:
		err = fmt.Errorf("read the tar stream: %s stream: %w", kind, err)
	}
	return &packingError{err}
}
