package build

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
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/treetar"
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
	unpacked, done, err := layers.Unpacked(stream)
	if err != nil {
		return fmt.Errorf("context of %s: %w", from, err)
	}
	defer done()
	plain := bufio.NewReaderSize(unpacked, 64<<10)
	if head, _ := plain.Peek(512); !isTar(head) {
		if file != "" {
			return hint.Errorf("-f names a file in the archive", "%s is no tar archive", from)
		}
		src.name = "Dockerfile"
		src.data, err = readLimited(io.NopCloser(plain))
		if err == nil && len(src.data) == 0 {
			err = hint.Errorf(emptyAdvice, "%s is empty", from)
		}
		return err
	}
	if err := unpackContext(ctx, plain, dir); err != nil {
		return fmt.Errorf("context of %s: %w", from, err)
	}
	src.dir = dir
	return nil
}

const emptyAdvice = "a Dockerfile begins with FROM; did the command fail that writes it?"

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
	u := &unpacking{root: root, buf: make([]byte, 256<<10), dirs: map[string]fs.FileMode{}}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.entry(ctx, h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	// A directory's mode may keep its own files from being written.
	for name, mode := range u.dirs {
		if err := root.Chmod(name, mode&0o777|0o700); err != nil {
			return err
		}
	}
	return nil
}

// unpacking is one unpackContext.
type unpacking struct {
	root  *os.Root
	buf   []byte
	holes treetar.Sparse
	dirs  map[string]fs.FileMode
}

var errTop = errors.New("its name is that of the context itself, which is a directory")

func (u *unpacking) entry(ctx context.Context, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	switch {
	case name == ".." || strings.HasPrefix(name, "../"):
		return ErrOutside
	case name == "." && h.Typeflag != tar.TypeDir:
		return errTop
	}
	if err := u.mkdirAll(path.Dir(name)); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		if err := u.mkdirAll(name); err != nil {
			return err
		}
		u.dirs[name] = fs.FileMode(h.Mode)
		return nil
	}
	return u.leaf(ctx, name, h, r)
}

// mkdirAll makes the directories of a path. What was a file until now is
// replaced, as tar does it; a symlink to a directory is followed.
func (u *unpacking) mkdirAll(dir string) error {
	if dir == "." {
		return nil
	}
	err := u.root.MkdirAll(dir, 0o755)
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	if err := u.mkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	if info, err := u.root.Lstat(dir); err == nil && !info.IsDir() {
		if err := u.root.Remove(dir); err != nil {
			return err
		}
	}
	return u.root.MkdirAll(dir, 0o755)
}

// leaf makes what is no directory.
func (u *unpacking) leaf(ctx context.Context, name string, h *tar.Header, r io.Reader) error {
	if err := u.clear(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := u.holes.Add(h); err != nil {
			return err
		}
		return u.file(ctx, name, h, r)
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), name)
	}
	return fmt.Errorf("a context has no files of type %q", h.Typeflag)
}

// clear makes room: a later entry of the same name replaces the earlier one.
func (u *unpacking) clear(name string) error {
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return u.root.Remove(name)
	}
	if err := u.root.RemoveAll(name); err != nil {
		return err
	}
	for dir := range u.dirs {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			delete(u.dirs, dir)
		}
	}
	return nil
}

func (u *unpacking) file(ctx context.Context, name string, h *tar.Header, r io.Reader) (err error) {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err == nil {
			err = u.root.Chtimes(name, h.ModTime, h.ModTime)
		}
	}()
	if err := treetar.Fill(ctx, int(f.Fd()), h.Size, r, u.buf); err != nil {
		return err
	}
	mode := h.FileInfo().Mode()
	return f.Chmod(mode.Perm() | mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
}
