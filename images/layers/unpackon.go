package layers

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/unxz"
)

// IsArchive tells whether a file is a tar archive, plain or packed with gzip,
// zstd, bzip2 or xz.
func IsArchive(f *os.File) (bool, error) {
	head := make([]byte, 512)
	n, err := io.ReadFull(f, head)
	if head = head[:n]; err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	if isTar(head) {
		return true, nil
	}
	if !bytes.HasPrefix(head, []byte("\x1f\x8b")) && !isZstd(head) && !isBzip2(head) && !isXz(head) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	in, err := OpenArchive(f)
	if err != nil {
		return false, nil // whatever it is, it is copied
	}
	defer in.Close()
	n, _ = io.ReadFull(in, head[:cap(head)])
	return isTar(head[:n]), nil
}

func isBzip2(head []byte) bool { return bytes.HasPrefix(head, []byte("BZh")) }

func isXz(head []byte) bool { return bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")) }

// OpenArchive reads a file that IsArchive.
func OpenArchive(f io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(f, inputBuffer)
	switch head, _ := in.Peek(6); {
	case isBzip2(head):
		return io.NopCloser(bzip2.NewReader(in)), nil
	case isXz(head):
		x, err := unxz.NewReader(in)
		if err != nil {
			return nil, packedError("xz", err)
		}
		return io.NopCloser(x), nil
	}
	r, _, err := Decompress(in)
	return r, err
}

// Unpack puts what is in a tar stream into the directory dest, a path without
// symlinks (Real), as ADD does. Symlinks that the view has are followed on the
// way, inside of the view. made is what directories that no entry describes
// look like; owner, if set, is everyone's.
func (m *Making) Unpack(ctx context.Context, stream io.Reader, dest string, made Look, owner *Owned) error {
	u := &unpackingOn{m: m, dest: dest, made: made, owner: owner}
	spot, err := m.MkdirAll(dest, made)
	if err != nil {
		return err
	}
	if err := spot.Close(); err != nil {
		return err
	}
	archive := tar.NewReader(stream)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return streamError(err)
		}
		if err := u.entry(h, archive); err != nil {
			return entryError(h.Name, m.dir, err)
		}
	}
}

type unpackingOn struct {
	m     *Making
	dest  string
	made  Look
	owner *Owned
}

// place follows the directories of an entry's path.
func (u *unpackingOn) place(unsafeName string) (dir, base string, err error) {
	name, err := cleanName(unsafeName)
	if err != nil || name == "." {
		return u.dest, ".", err
	}
	above, base := path.Split(name)
	way, kind, err := u.m.Real(path.Join(u.dest, above))
	if err != nil {
		return "", "", err
	}
	if kind == OtherFile {
		return "", "", unix.ENOTDIR
	}
	return way, base, nil
}

func (u *unpackingOn) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	dir, base, err := u.place(h.Name)
	if err != nil || base == "." && h.Typeflag != tar.TypeDir {
		return err
	}
	look := Look{Mode: uint32(h.Mode) & 0o7777, UID: uint32(h.Uid), GID: uint32(h.Gid), Time: h.ModTime}
	if u.owner != nil {
		look.UID, look.GID = u.owner.UID, u.owner.GID
	}
	for record, value := range h.PAXRecords {
		if x, ok := splitXattr(record); ok && !forged(x) {
			look.xattrs = append(look.xattrs, xattr{x, value})
		}
	}
	spot, err := u.m.MkdirAll(dir, u.made)
	if err != nil {
		return err
	}
	err = u.put(spot, base, look, h, content)
	return errors.Join(err, spot.Close())
}

func (u *unpackingOn) put(s *Spot, base string, look Look, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if base == "." {
			if s.path == "." {
				return nil // the stage's own /
			}
			u.m.own(s.path, look)
			return s.Set(look)
		}
		in, err := s.Enter(base)
		if errors.Is(err, unix.ENOENT) {
			in, err = s.Mkdir(base, look)
		} else if err == nil {
			err = in.Set(look)
		}
		if errors.Is(err, unix.ENOTDIR) {
			return ErrNotDirectory
		}
		if err != nil {
			return err
		}
		u.m.own(in.path, look)
		return in.Close()
	case tar.TypeReg, tar.TypeGNUSparse:
		return s.File(base, look, h.Size, content)
	case tar.TypeSymlink, tar.TypeFifo:
		if err := s.clear(base); err != nil {
			return err
		}
		u.m.own(path.Join(s.path, base), look)
		if h.Typeflag == tar.TypeFifo {
			return s.Fifo(base, look)
		}
		return s.Symlink(base, h.Linkname, look)
	case tar.TypeLink:
		return u.link(s, base, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		return fmt.Errorf("a device node: %w", errNotHere)
	}
	return fmt.Errorf("an entry of type %q: %w", h.Typeflag, errNotHere)
}

var errNotHere = errors.New("it can't be made without privileges")

// link makes a hard link to a file that the stream brought before.
func (u *unpackingOn) link(s *Spot, base, unsafeTarget string) error {
	dir, name, err := u.place(unsafeTarget)
	if err != nil {
		return err
	}
	if err := s.clear(base); err != nil {
		return err
	}
	target := path.Join(dir, name)
	if err := unix.Linkat(u.m.root, target, s.fd, base, 0); err != nil {
		return fmt.Errorf("a hard link to %s: %w", printable(strings.TrimPrefix(unsafeTarget, "/")), err)
	}
	u.m.ownAs(path.Join(s.path, base), target)
	return nil
}
