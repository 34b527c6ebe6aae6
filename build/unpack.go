package build

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"nook/internal/hint"
	"nook/internal/unxz"
)

// fromStdin reads a tar archive as the context, or, of what is none, a
// Dockerfile without a context, as docker does.
func (src *source) fromStdin(ctx context.Context, o Source, dir string) error {
	in, err := given(ctx, o.Stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	return src.fromStream(ctx, in, "standard input", o.File, dir)
}

// fromURL is fromStdin of a file that is fetched.
func (src *source) fromURL(ctx context.Context, o Source, temp string) error {
	file, err := download(ctx, o.Context, filepath.Join(temp, "fetched"), "")
	if err != nil {
		return err
	}
	f, err := os.Open(file.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return src.fromStream(ctx, f, o.Context, o.File, filepath.Join(temp, "context"))
}

// fromStream reads a context or Dockerfile; from is what messages call it.
func (src *source) fromStream(ctx context.Context, stream io.Reader, from, file, dir string) error {
	plain, err := unpacked(bufio.NewReaderSize(stream, 64<<10))
	if err != nil {
		return fmt.Errorf("context of %s: %w", from, err)
	}
	if head, _ := plain.Peek(512); !isTar(head) {
		if file != "" {
			return hint.Errorf("-f names a file in the archive", "%s is no tar archive", from)
		}
		src.name = "Dockerfile"
		src.data, err = readLimited(io.NopCloser(plain))
		if err == nil && len(src.data) == 0 {
			err = fmt.Errorf("%s is empty", from)
		}
		return err
	}
	if err := unpackContext(ctx, plain, dir); err != nil {
		return fmt.Errorf("context of %s: %w", from, err)
	}
	src.dir = dir
	return nil
}

// unpacked takes the compression off.
func unpacked(r *bufio.Reader) (*bufio.Reader, error) {
	head, _ := r.Peek(6)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return bufio.NewReaderSize(z, 64<<10), nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return bufio.NewReaderSize(z, 64<<10), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bufio.NewReaderSize(bzip2.NewReader(r), 64<<10), nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		x, err := unxz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return bufio.NewReaderSize(x, 64<<10), nil
	}
	return r, nil
}

// isTar knows a tar header by its magic, or by its checksum's form.
func isTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	if bytes.Equal(head[257:262], []byte("ustar")) {
		return true
	}
	_, err := tar.NewReader(bytes.NewReader(append(bytes.Clone(head), make([]byte, 1024)...))).Next()
	return err == nil
}

// unpackContext writes an archive below dir, which it makes. Names in it lead
// nowhere else: each goes through the directory's descriptor. Owners are left
// out, as files of a context have none.
func unpackContext(ctx context.Context, r io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(until(ctx, r))
	var dirs []*tar.Header
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		if name == ".." || strings.HasPrefix(name, "../") {
			return fmt.Errorf("%q: %w", h.Name, ErrOutside)
		}
		h.Name = name
		if h.Typeflag == tar.TypeDir {
			dirs = append(dirs, h)
		}
		if err := unpackOne(root, tr, h); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	// A directory's mode may keep its own files from being written.
	for _, h := range dirs {
		if err := root.Chmod(h.Name, fs.FileMode(h.Mode)&0o777|0o700); err != nil {
			return err
		}
	}
	return nil
}

func unpackOne(root *os.Root, r io.Reader, h *tar.Header) error {
	if dir := path.Dir(h.Name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(h.Name, 0o755)
	}
	// A later entry of the same name replaces the earlier one.
	if err := root.RemoveAll(h.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		mode := h.FileInfo().Mode()
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			f.Close()
			return err
		}
		if err := f.Chmod(mode.Perm() | mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return root.Chtimes(h.Name, h.ModTime, h.ModTime)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, h.Name)
	case tar.TypeLink:
		return root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), h.Name)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("a context has no files of type %q", h.Typeflag)
}
