package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// patiently reads what may keep one waiting for ever, when it is opened too: a
// terminal, a pipe that nobody writes to. Its reads end with ctx. Whatever waits
// then is left behind, and ends with the process at the latest.
func patiently(ctx context.Context, open func() (io.ReadCloser, error)) io.ReadCloser {
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	go func() {
		defer stop()
		from, err := open()
		if err == nil {
			_, err = io.Copy(w, from)
			_ = from.Close()
		}
		_ = w.CloseWithError(err) // of nil: io.EOF
	}()
	return r
}

// patientFile is patiently of a file that the caller named: it may be a fifo,
// or the /dev/fd/N that a shell makes of <(command).
func patientFile(ctx context.Context, name string) io.ReadCloser {
	return patiently(ctx, func() (io.ReadCloser, error) { return os.Open(name) })
}

// given is standard input.
func given(ctx context.Context, stdin io.Reader) (io.ReadCloser, error) {
	if stdin == nil {
		return nil, errors.New("there is no standard input")
	}
	return patiently(ctx, func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil }), nil
}

// regular opens a file that came with the context, by one of the OpenFiles.
// Nobody writes to a fifo there, and opening it would wait for that.
func regular(open func(name string, flag int, mode fs.FileMode) (*os.File, error), name string) (*os.File, error) {
	f, err := open(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readerFunc is an io.Reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// until is r for as long as ctx is.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}
