package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

func exportVerb() verb {
	return verb{
		name:    "export",
		long:    []string{"container export"},
		about:   "Export a container's filesystem as a tar archive",
		usage:   "[OPTIONS] CONTAINER",
		min:     1,
		max:     1,
		options: archiveOptions,
		examples: []string{
			"nook export -o web.tar web",
			"nook export web | nook import - web:flat",
		},
		run: (*shell).export,
	}
}

func archiveOptions() []option {
	return []option{{name: "output", short: "o", value: "string", usage: "Write to a file, instead of STDOUT"}}
}

// archiveOutput is -o of a verb that writes an archive; "": standard output,
// which must be no terminal then.
func (s *shell) archiveOutput(c *cli.Context) (string, error) {
	output := c.String("output")
	if output == "" && asTerminal(s.stdout) != nil {
		return "", hint.Errorf("use -o FILE, or redirect standard output", "an archive is not written to a terminal")
	}
	return output, nil
}

func (s *shell) export(c *cli.Context) error {
	output, err := s.archiveOutput(c)
	if err != nil {
		return err
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		return s.toFile(ctx, output, func(w io.Writer) error { return nook.Export(ctx, c.Args().First(), w) })
	})
}

// toFile writes a whole file, or, for "", standard output. A file that was
// there stays as it was until the new one is complete.
func (s *shell) toFile(ctx context.Context, name string, write func(io.Writer) error) error {
	if name == "" {
		return write(s.stdout)
	}
	// What is no regular file is written to: /dev/null, a fifo.
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := openForWriting(ctx, name)
		if err != nil {
			return err
		}
		// A reader that stopped reading keeps nobody from ending.
		stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
		defer stop()
		return errors.Join(write(f), f.Close())
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, atomicfile.Cause(err))
	}
	defer temporary.Close()
	// The same file under the name that errors are to have.
	fd, err := unix.FcntlInt(temporary.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(fd), name)
		err = errors.Join(write(f), f.Chmod(0o600), f.Close())
	}
	if err == nil {
		if err = os.Rename(temporary.Name(), name); err != nil {
			err = fmt.Errorf("write %s: %w", name, atomicfile.Cause(err))
		}
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
	}
	// It need not be the file system that other errors of the kind are of.
	if of, ok := errors.AsType[*os.PathError](err); ok && of.Path == name && (errors.Is(of, unix.ENOSPC) || errors.Is(of, unix.EDQUOT)) {
		err = hint.Wrap(err, "make room on the file system of "+name+", or write to another")
	}
	return err
}

// openForWriting opens what is no regular file. A fifo waits for its reader, for
// as long as ctx goes on.
func openForWriting(ctx context.Context, name string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened)
	go func() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		select {
		case done <- opened{f, err}:
		case <-ctx.Done():
			f.Close()
		}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
