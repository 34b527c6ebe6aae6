package treetar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxSparse is how long all sparse files of a stream may be, in bytes. A
// header of some bytes can stand for exabytes of holes, which take no room here
// and still time.
const MaxSparse = 64 << 30

// ErrBomb says that a stream unpacks to far more than it is.
var ErrBomb = errors.New("it unpacks to far more than it is")

// Sparse adds up the length of a stream's sparse files.
type Sparse struct{ length int64 }

// Add counts an entry, before anything of it is read. The error is ErrBomb.
func (s *Sparse) Add(h *tar.Header) error {
	if !IsSparse(h) {
		return nil
	}
	if h.Size > MaxSparse-s.length {
		return fmt.Errorf("%w: its sparse files are over %d GiB long", ErrBomb, MaxSparse>>30)
	}
	s.length += h.Size
	return nil
}

// IsSparse tells whether an entry is a sparse file, in any of GNU tar's formats
// (its manual, "Storing Sparse Files"). archive/tar keeps their records.
func IsSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for record := range h.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// Fill writes size bytes of an entry's content to an empty file, by way of buf,
// and leaves holes for zeros: what archive/tar gives of holes are zeros.
func Fill(ctx context.Context, fd int, size int64, content io.Reader, buf []byte) error {
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(size-at, int64(len(buf)))]
		if _, err := io.ReadFull(content, part); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read the tar stream: %w", err)
		}
		if err := writeSparse(fd, part, at); err != nil {
			return err
		}
		at += int64(len(part))
	}
	// Zeros at the end were left out.
	return call("ftruncate", unix.Ftruncate(fd, size))
}
