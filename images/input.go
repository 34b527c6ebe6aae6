package images

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"nook/internal/hint"
)

// input is an opened LoadOptions.Path or Input.
type input struct {
	root   *os.Root  // a directory
	stream io.Reader // anything else
	size   int64     // 0 when unknown
	close  func()
}

func openInput(ctx context.Context, path string, stream io.Reader) (*input, error) {
	if path == "" {
		r := interruptible(ctx, stream)
		return &input{stream: r, close: func() { _ = r.Close() }}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	switch {
	case info.IsDir():
		_ = f.Close()
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		return &input{root: root, close: func() { _ = root.Close() }}, nil
	case info.Mode().IsRegular():
		return &input{stream: f, size: info.Size(), close: func() { _ = f.Close() }}, nil
	}
	r := interruptible(ctx, f)
	return &input{stream: r, close: func() { _ = r.Close(); _ = f.Close() }}, nil
}

func (in *input) archive(ctx context.Context, stage *staging, add func(int64)) (archive, error) {
	if in.root == nil {
		return readTar(ctx, in, watched(ctx, in.stream, add), stage)
	}
	a := &dirArchive{
		root: in.root, stage: stage, copied: make(map[string]staged),
		watch: func(r io.Reader) io.Reader { return watched(ctx, r, add) },
	}
	if !a.has(indexFile) {
		return nil, hint.Errorf("nook load takes an archive file or an OCI layout directory; a root filesystem goes through tar and nook import",
			"%w: the directory has no %s", ErrNotArchive, indexFile)
	}
	return a, nil
}

// baseName makes busybox of /tmp/BusyBox.tar.gz.
func baseName(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	base := strings.ToLower(filepath.Base(path))
	for _, ext := range []string{".gz", ".zst", ".tgz", ".tar", ".oci"} {
		base = strings.TrimSuffix(base, ext)
	}
	return base
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// watched is r that tells add how much was read and ends with ctx.
func watched(ctx context.Context, r io.Reader, add func(int64)) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		if n > 0 {
			add(int64(n))
		}
		return n, err
	})
}

// interruptible makes Read return when ctx ends, though r may block for ever,
// as a pipe or a terminal does. Then one goroutine stays in r.Read until r
// gives something. The caller closes what it gets.
func interruptible(ctx context.Context, r io.Reader) io.ReadCloser {
	reader, writer := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = writer.CloseWithError(ctx.Err()) })
	go func() {
		_ = writer.CloseWithError(copyAll(writer, r))
		stop()
	}()
	return reader
}
