package layers

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
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
	if archivePacking(head) == Uncompressed {
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

// archivePacking tells how a stream that begins with head is packed.
func archivePacking(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		return Gzip
	case isZstd(head):
		return Zstd
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2Packed
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return xzPacked
	}
	return Uncompressed
}

// OpenArchive takes the packing off a file that IsArchive, ahead of the reader;
// see Decompress. Close ends that.
func OpenArchive(f io.Reader) (io.ReadCloser, error) {
	return openArchiveUpTo(f, bombBytes)
}

func openArchiveUpTo(f io.Reader, floor int64) (io.ReadCloser, error) {
	limit := &fuse{floor: floor, advice: trustArchive}
	in := bufio.NewReaderSize(limit.count(f), inputBuffer)
	head, _ := in.Peek(6)
	kind := archivePacking(head)
	unpacked, done, err := decoder(in, kind)
	if err != nil {
		return nil, err
	}
	if kind == Uncompressed {
		limit = nil
	}
	return newStream(unpacked, kind, limit, done, false), nil
}

// Unpacked is OpenArchive of a stream that may be anything, and in step with
// its reader: nobody waits for more of the stream than is asked for. What isn't
// packed is given as it is. done lets go of it.
func Unpacked(stream io.Reader) (plain io.Reader, done func(), err error) {
	return unpackedUpTo(stream, bombBytes)
}

func unpackedUpTo(stream io.Reader, floor int64) (plain io.Reader, done func(), err error) {
	limit := &fuse{floor: floor, advice: trustArchive}
	in := bufio.NewReaderSize(limit.count(stream), inputBuffer)
	head, _ := in.Peek(6)
	kind := archivePacking(head)
	if kind == Uncompressed {
		return in, func() {}, nil
	}
	unpacked, done, err := decoder(in, kind)
	if err != nil {
		return nil, nil, err
	}
	return &guarded{unpacked, kind, limit}, done, nil
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
		if err := u.entry(ctx, h, archive); err != nil {
			return entryError(h.Name, m.dir, err)
		}
	}
}

type unpackingOn struct {
	m     *Making
	dest  string
	made  Look
	owner *Owned
	holes treetar.Sparse
}

// place follows the directories of an entry's path.
func (u *unpackingOn) place(unsafeName string) (dir, base string, err error) {
	name, err := cleanName(unsafeName)
	if err != nil || name == "." {
		return u.dest, ".", err
	}
	for part := range strings.SplitSeq(name, "/") {
		if marked(part) {
			return "", "", errMarker
		}
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

func (u *unpackingOn) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	dir, base, err := u.place(h.Name)
	if errors.Is(err, errMarker) {
		u.m.leaveOut(path.Join(u.dest, strings.TrimLeft(h.Name, "/")))
		return nil
	}
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
	err = u.put(ctx, spot, base, look, h, content)
	return errors.Join(err, spot.Close())
}

func (u *unpackingOn) put(ctx context.Context, s *Spot, base string, look Look, h *tar.Header, content io.Reader) error {
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
			return s.notDirectory(base)
		}
		if err != nil {
			return err
		}
		u.m.own(in.path, look)
		return in.Close()
	case tar.TypeReg, tar.TypeGNUSparse:
		if err := u.holes.Add(h); err != nil {
			return err
		}
		return s.File(ctx, base, look, h.Size, content)
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
