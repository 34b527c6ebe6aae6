package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/internal/treetar"
)

// A volume's first files are those that an image has where it is mounted:
//
//	NAME/filling   a copy on its way; who finds it removes it
//	NAME/filled    a whole copy; who finds it puts it into _data
//
// So a kill or a full disk leaves an empty volume or a filled one, and _data
// itself stays what it is: a container may have it mounted already.

// Fill copies a directory, with all owners that exist, into a volume without
// files. One that has some is left alone. note is told what can't be copied. In a
// stage only; others wait (Hold).
func (s Store) Fill(ctx context.Context, name string, from *os.File, d atomicfile.Durability, note func(string)) error {
	err := s.fill(ctx, name, d, func(to *os.File) error { return copyTree(ctx, from, to, note) })
	if errors.Is(err, ErrHasFiles) {
		return nil
	}
	return err
}

// fill puts dataName of a directory, which write fills, into a volume without
// files; ErrHasFiles: it has some.
func (s Store) fill(ctx context.Context, name string, d atomicfile.Durability, write func(to *os.File) error) (err error) {
	done, err := s.Hold(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	if err := s.finish(name); err != nil {
		return err
	}
	if empty, err := s.Empty(name); err != nil {
		return err
	} else if !empty {
		return fmt.Errorf("fill volume %s: %w", name, ErrHasFiles)
	}
	filling := s.filling(name)
	defer func() {
		if err != nil {
			_ = os.RemoveAll(filling)
			err = fmt.Errorf("fill volume %s: %w", name, err)
		}
	}()
	if err := os.RemoveAll(filling); err != nil {
		return err
	}
	if err := os.Mkdir(filling, 0o700); err != nil {
		return err
	}
	to, err := os.Open(filling)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := write(to); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(to.Fd()), dataName, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("fstatat: %w", err)
	}
	// Where a link leads, finish would take the files from.
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errTop
	}
	// A name that a power cut spares must not stand for a file that it didn't.
	if d == atomicfile.Durable {
		if err := flush(to); err != nil {
			return err
		}
	}
	if err := unix.Rename(filling, s.filled(name)); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	return s.finish(name)
}

// errTop says that an archive's "." is a link or a file.
var errTop = fmt.Errorf("the top of the tar stream is no directory: %w", unix.ENOTDIR)

// fewFiles are flushed one by one: syncfs(2) waits for what all others have
// written to the file system, too.
const fewFiles = 32

// errMany ends the walk of flush.
var errMany = errors.New("many files")

// flush waits until the files below a directory are on the disk.
func flush(dir *os.File) error {
	var files []string
	err := filepath.WalkDir(dir.Name(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			files = append(files, path)
		}
		// An image may be as deep as a path can be, and here it lies deeper.
		if len(files) > fewFiles || len(path) >= unix.PathMax {
			return errMany
		}
		return err
	})
	if errors.Is(err, errMany) {
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return fmt.Errorf("syncfs: %w", err)
		}
		return nil
	}
	for _, path := range files {
		if err == nil {
			err = atomicfile.SyncDir(path) // or file
		}
	}
	return err
}

func (s Store) filling(name string) string { return filepath.Join(s.Dir(name), "filling") }

func (s Store) filled(name string) string { return filepath.Join(s.Dir(name), "filled") }

// Pending tells whether a copy waits to be put into its volume: Finish.
func (s Store) Pending(name string) bool {
	return unix.Access(s.filled(name), unix.F_OK) == nil
}

// Finish ends a Fill that was killed after it had copied everything. In a stage
// only.
func (s Store) Finish(ctx context.Context, name string) error {
	done, err := s.Hold(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	return s.finish(name)
}

// Empty tells whether a volume has no files. One whose directory is closed to
// us was given to somebody, who has used it.
func (s Store) Empty(name string) (bool, error) {
	f, err := s.openData(name, unix.O_RDONLY)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// openData opens the directory of a volume's files. A link in its place, which
// the user may have put there, is refused: pid 1 doesn't mount it either.
func (s Store) openData(name string, flags int) (*os.File, error) {
	f, err := os.OpenFile(s.Data(name), flags|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) {
		err = hint.Wrap(err, "move the directory that it leads to in its place; a volume that is elsewhere has --opt type=none --opt o=bind --opt device=DIRECTORY")
	}
	return f, err
}

// dataName is the copied directory in filling and filled.
const dataName = "_data"

func copyTree(ctx context.Context, from, to *os.File, note func(string)) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		tree := treetar.NewWriter(w)
		tree.Note = note
		err := tree.Tree(ctx, from, dataName)
		if err == nil {
			err = tree.Close()
		}
		_ = w.CloseWithError(err)
		written <- err
	}()
	_, err := treetar.Extract(ctx, r, to, treetar.Options{
		Owner: func(o treetar.Owned) treetar.Owned { return o }, Privileges: true, Note: note,
	})
	_ = r.CloseWithError(err)
	if werr := <-written; err == nil {
		err = werr
	}
	return err
}

// finish moves what was copied to its place, as often as it is called.
func (s Store) finish(name string) error {
	filled := s.filled(name)
	if !s.Pending(name) {
		return nil
	}
	from := filepath.Join(filled, dataName)
	var st unix.Stat_t // now: what leaves it changes its time
	there := unix.Lstat(from, &st)
	entries, err := readDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("fill volume %s: %w", name, err)
	}
	data, err := s.openData(name, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", name, err)
	}
	defer data.Close()
	for _, e := range entries {
		err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(from, e.Name()), int(data.Fd()), e.Name(), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, unix.EEXIST) { // a container was quicker
			return fmt.Errorf("fill volume %s: rename %s: %w", name, e.Name(), err)
		}
	}
	if there == nil {
		if err := unix.Fchown(int(data.Fd()), int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("fill volume %s: chown: %w", name, err)
		}
		const permissions = 0o7777
		if err := unix.Fchmod(int(data.Fd()), st.Mode&permissions); err != nil {
			return fmt.Errorf("fill volume %s: chmod: %w", name, err)
		}
		if err := unix.UtimesNanoAt(int(data.Fd()), "", []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("fill volume %s: utimensat: %w", name, err)
		}
	}
	if err := os.RemoveAll(filled); err != nil {
		return fmt.Errorf("fill volume %s: %w", name, err)
	}
	return nil
}

// readDir is os.ReadDir, of what is no link.
func readDir(dir string) ([]fs.DirEntry, error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}
