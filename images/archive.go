package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/treetar"
)

// archive is the files of an image archive by their names in it. The names
// are foreign and are only ever looked up, never used as paths outside it.
type archive interface {
	// has says whether there is a file of this name.
	has(name string) bool
	// file brings a file into the staging directory, whole. The error is
	// fs.ErrNotExist when it isn't there.
	file(name string) (staged, error)
}

const (
	// maxEntries is far above an archive of many images with 500 layers each;
	// a root filesystem taken for an image stops here.
	maxEntries = 20000
	maxName    = 4096
	// maxLinks is how many links may lead to one another. docker's old
	// archives have one.
	maxLinks = 16
	// maxTrailer is how much may follow the end of a tar archive.
	maxTrailer = 1 << 20
)

// tarArchive is an archive read in one pass: all its files lie in the staging
// directory, and what they mean is found out afterwards.
type tarArchive struct {
	files map[string]staged
	links map[string]string // a name in the archive: another one
}

func (a *tarArchive) has(name string) bool {
	_, err := a.file(name)
	return err == nil
}

func (a *tarArchive) file(name string) (staged, error) {
	name = cleanName(name)
	for range maxLinks {
		if file, found := a.files[name]; found {
			return file, nil
		}
		target, found := a.links[name]
		if !found {
			return staged{}, fmt.Errorf("%q in the archive: %w", shorten(name), fs.ErrNotExist)
		}
		name = target
	}
	return staged{}, fmt.Errorf("%q in the archive: links lead in a circle: %w", shorten(name), fs.ErrNotExist)
}

// cleanName makes "./a/../b" and "/b" into "b": there is nothing above the
// archive's root.
func cleanName(unsafeName string) string {
	return strings.TrimPrefix(path.Clean("/"+unsafeName), "/")
}

// readTar reads an archive from in, which may be compressed as a whole, and
// closes in.
func readTar(ctx context.Context, in *input, r io.Reader, stage *staging) (*tarArchive, error) {
	defer in.close()
	raw := bufio.NewReaderSize(r, 256<<10)
	head, err := peek(raw)
	if err != nil {
		return nil, err
	}
	unpacked := raw
	if kind := layerTypeOf(head); kind == mediaTypeLayerGzip || kind == mediaTypeLayerZstd {
		plain, _, err := layers.Decompress(raw)
		if err != nil {
			return nil, damaged(err)
		}
		defer plain.Close()
		// Close waits for a goroutine that may be blocked reading in.
		defer in.close()
		unpacked = bufio.NewReaderSize(plain, 64<<10)
		if head, err = peek(unpacked); err != nil {
			return nil, damaged(err)
		}
	}
	a := &tarArchive{files: make(map[string]staged), links: make(map[string]string)}
	if err := a.read(ctx, tar.NewReader(unpacked), stage); err != nil {
		if !isTar(head) {
			return nil, foreign(head)
		}
		return nil, damaged(err)
	}
	if len(head) == 0 {
		return nil, foreign(head)
	}
	// A writer on a pipe isn't cut off, and the checksums at the end of a
	// compressed stream are looked at.
	if _, err := io.CopyN(io.Discard, unpacked, maxTrailer); err != nil && !errors.Is(err, io.EOF) {
		return nil, damaged(err)
	}
	return a, nil
}

func peek(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return bytes.Clone(head), nil
}

// isTar says whether a stream that begins with head is one of tar, damaged
// further on perhaps.
func isTar(head []byte) bool {
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return len(head) == 512 && !errors.Is(err, tar.ErrHeader)
}

func foreign(head []byte) error {
	what := whatIs(head)
	if what == "" {
		return hint.Wrap(ErrNotArchive, foreignAdvice(what))
	}
	return hint.Errorf(foreignAdvice(what), "%w but %s", ErrNotArchive, what)
}

// damaged names what the errors of the readers of tar, gzip and zstd mean.
// Others, of the disk or of the context, stay as they are.
func damaged(err error) error {
	const again = "copy or download it again, and compare sizes"
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return hint.Wrap(ErrTruncated, again)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &pathErr), hint.Of(err) != "":
		return err
	}
	return hint.Errorf(again, "the archive is damaged: %w", err)
}

func (a *tarArchive) read(ctx context.Context, tr *tar.Reader, stage *staging) error {
	for count := 0; ; count++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if count == maxEntries {
			return hint.Errorf("a root filesystem is brought in with nook import",
				"%w: it has more than %d files", ErrNotArchive, maxEntries)
		}
		if len(header.Name) > maxName || len(header.Linkname) > maxName {
			return hint.Errorf("no image archive has such names",
				"%w: a name in it is longer than %d bytes", ErrNotArchive, maxName)
		}
		if err := a.add(header, tr, stage); err != nil {
			return err
		}
	}
}

// add takes in one entry. As with tar -x, a later entry replaces an earlier
// one of its name. Directories say nothing, and devices and fifos are no part
// of any archive format.
func (a *tarArchive) add(header *tar.Header, r io.Reader, stage *staging) error {
	name := cleanName(header.Name)
	switch header.Typeflag {
	case tar.TypeReg:
		if treetar.IsSparse(header) {
			// A few bytes of it may stand for exabytes.
			return hint.Errorf("write the archive without tar's --sparse",
				"%q in the archive is a sparse file", shorten(name))
		}
		file, err := stage.write(r)
		if err != nil {
			return err
		}
		a.forget(name)
		a.files[name] = file
	case tar.TypeGNUSparse:
		return hint.Errorf("write the archive without tar's --sparse",
			"%q in the archive is a sparse file", shorten(name))
	case tar.TypeSymlink:
		target := header.Linkname
		if !strings.HasPrefix(target, "/") {
			target = path.Join("/", path.Dir("/"+name), target)
		}
		a.forget(name)
		a.links[name] = cleanName(target)
	case tar.TypeLink:
		a.forget(name)
		a.links[name] = cleanName(header.Linkname)
	}
	return nil
}

func (a *tarArchive) forget(name string) {
	if old, found := a.files[name]; found {
		_ = os.Remove(old.path)
		delete(a.files, name)
	}
	delete(a.links, name)
}

// dirArchive is an OCI layout in a directory. The root keeps the names and
// the symlinks in it from leading out.
type dirArchive struct {
	root   *os.Root
	stage  *staging
	copied map[string]staged
	watch  func(io.Reader) io.Reader
}

func (a *dirArchive) has(name string) bool {
	info, err := a.root.Stat(cleanName(name))
	return err == nil && info.Mode().IsRegular()
}

func (a *dirArchive) file(name string) (staged, error) {
	name = cleanName(name)
	if file, found := a.copied[name]; found {
		return file, nil
	}
	// Opening a fifo would wait for its writer.
	if info, err := a.root.Stat(name); err != nil {
		return staged{}, err
	} else if !info.Mode().IsRegular() {
		return staged{}, fmt.Errorf("%s is no regular file: %w", name, fs.ErrNotExist)
	}
	f, err := a.root.Open(name)
	if err != nil {
		return staged{}, err
	}
	defer f.Close()
	file, err := a.stage.write(a.watch(f))
	if err == nil {
		a.copied[name] = file
	}
	return file, err
}
