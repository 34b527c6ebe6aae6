package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/treetar"
)

// ErrHasFiles says that a volume isn't empty.
var ErrHasFiles = errors.New("volume has files")

// Import unpacks a tar stream, not packed, into a volume without files, with
// all owners that exist: everything up to the stream's end, or nothing. note is
// told what was left out. In a stage only.
func (s Store) Import(ctx context.Context, name string, stream io.Reader, note func(string)) error {
	return s.fill(ctx, name, atomicfile.Durable, func(to *os.File) error {
		_, err := treetar.Extract(ctx, stream, to, treetar.Options{
			From: ".", To: dataName, Privileges: true, Note: note,
			Owner: func(o treetar.Owned) treetar.Owned { return o },
		})
		if err != nil {
			return err
		}
		// Who writes it isn't done before its end, and may yet go wrong.
		if _, err := io.Copy(io.Discard, stream); err != nil {
			return fmt.Errorf("read the tar stream: %w", err)
		}
		if err := unix.Mkdirat(int(to.Fd()), dataName, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("mkdir: %w", err)
		}
		return nil
	})
}

// Export writes a volume's files as the function Export does. In a stage only.
func (s Store) Export(ctx context.Context, name string, w io.Writer, note func(string)) error {
	f, err := s.openData(name, unix.O_PATH)
	if err != nil {
		return err
	}
	return export(ctx, f, w, note)
}

// Export writes the files of a directory as a tar stream, with the owners that
// the caller's user namespace gives them, names from "." on. In a stage only.
func Export(ctx context.Context, dir string, w io.Writer, note func(string)) error {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return export(ctx, f, w, note)
}

// export closes the directory.
func export(ctx context.Context, dir *os.File, w io.Writer, note func(string)) error {
	defer dir.Close()
	tree := treetar.NewWriter(w)
	tree.Note = note
	if err := tree.Tree(ctx, dir, "."); err != nil {
		return err
	}
	return tree.Close()
}
