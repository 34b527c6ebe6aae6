package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/treetar"
)

// IDs is which user and group ids exist where a layer is unpacked.
type IDs string

// The modes of ids. What was unpacked in one can't be used in another: the
// files have the owners of the first.
const (
	// Mapped has the ids of /etc/subuid: files get the owners of the image.
	Mapped IDs = "mapped"
	// Single has uid and gid 0 alone: nothing is ever given another owner, and
	// the image's are written down instead.
	Single IDs = "single"
	// Root is Mapped with the ids of the host.
	Root IDs = "root"
)

// Layer is a layer that is being unpacked into a directory.
type Layer struct {
	ids  IDs
	fs   string
	tree *tree

	// buf is for file contents.
	buf []byte
	// links are the hard links whose target is not in this layer.
	links []*link
	// belowOwners answers which owner the image gave to a path of a layer
	// below, for Single.
	belowOwners func(layer int, name string) (Owner, bool)

	entries int64
	bytes   int64
	holes   treetar.Sparse
	notes   notes
	root    *attributes // nil without an entry for the root
	done    bool
}

// Extract unpacks a tar stream into the empty directory fs, which nobody else
// may touch meanwhile. The stream is read to its end, also beyond the
// archive's. What the layer needs of those below is left to Finish, and
// nothing of the result may be used before that.
//
// The errors of hostile or damaged input name the entry. What is left in fs
// after an error is for the caller to remove.
func Extract(ctx context.Context, stream io.Reader, fs string, ids IDs) (*Layer, error) {
	t, err := openTree(fs)
	if err != nil {
		return nil, fmt.Errorf("extract: %w", err)
	}
	l := &Layer{ids: ids, fs: fs, tree: t, buf: make([]byte, fileBuffer)}
	if err := l.extract(ctx, stream); err != nil {
		l.Close()
		return nil, err
	}
	l.buf = nil
	return l, nil
}

func (l *Layer) extract(ctx context.Context, stream io.Reader) error {
	in := &positioned{r: stream}
	archive := tar.NewReader(in)
	var read int64 // where the last entry's content ended
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("extract: %w", err)
		}
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return streamError(err)
		}
		if err := l.entry(ctx, header, archive); err != nil {
			return entryError(header.Name, l.fs, err)
		}
		read = in.at
		l.entries++
	}
	// archive/tar takes an end amid the padding of a header or a file for a
	// good one. Good is only one with no padding at all behind the last file:
	// umoci insert (0.4) doesn't close its archives.
	if in.at%512 != 0 && in.at != read {
		return streamError(io.ErrUnexpectedEOF)
	}
	// What stands behind the archive's end counts for the digest.
	if _, err := io.Copy(io.Discard, &cancelled{ctx, stream}); err != nil {
		return streamError(err)
	}
	return nil
}

// streamError is for errors between entries.
func streamError(err error) error {
	if errors.Is(err, tar.ErrHeader) {
		return errors.New("extract: not a tar stream, or a damaged one")
	}
	return fmt.Errorf("extract: %w", cutOff(err))
}

// cutOff puts the end of the tar stream into words, unless it was the packing
// that ended too early.
func cutOff(err error) error {
	var packing *packingError
	if errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &packing) {
		return fmt.Errorf("the tar stream is cut off: %w", err)
	}
	return err
}

// entryError names the entry, and says what helps where the cause is known.
func entryError(unsafeName, fs string, err error) error {
	err = fmt.Errorf("extract %s: %w", printable(unsafeName), cutOff(err))
	switch {
	case errors.Is(err, unix.ENOSPC):
		return hint.Wrap(err, "make room on the file system of "+fs+", or choose another with --root")
	case errors.Is(err, unix.EDQUOT):
		return hint.Wrap(err, "your disk quota is used up: remove something, or choose another file system with --root")
	}
	return err
}

// positioned is a reader that knows how much was read.
type positioned struct {
	r  io.Reader
	at int64
}

func (p *positioned) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Close gives up the descriptors. Finish does so too.
func (l *Layer) Close() { l.tree.close() }

// Pending says whether the layer needs something of those below, so that its
// directory is right only on top of them.
func (l *Layer) Pending() bool {
	for _, d := range l.tree.implied {
		if d.attr == nil && d.attached() {
			return true
		}
	}
	for _, w := range l.links {
		if !w.dropped && w.dir.attached() {
			return true
		}
	}
	return false
}

// entry unpacks one entry.
func (l *Layer) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	kind, hidden, err := parseMarker(name)
	if err != nil {
		return err
	}
	if kind == ignored {
		return nil
	}
	if name == "." {
		return l.rootEntry(h)
	}
	d, base, err := l.tree.parent(name)
	if err != nil {
		return fmt.Errorf("its directory: %w", err)
	}
	switch kind {
	case opaqueMarker:
		return l.tree.setOpaque(d)
	case whiteout:
		return l.whiteout(d, hidden)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return l.directory(d, base, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return l.file(ctx, d, base, h, content)
	case tar.TypeSymlink:
		return l.symlink(d, base, h)
	case tar.TypeLink:
		return l.hardLink(d, base, h.Linkname)
	case tar.TypeFifo:
		return l.fifo(d, base, h)
	case tar.TypeChar, tar.TypeBlock:
		return l.device(d, base, h)
	}
	return fmt.Errorf("an entry of the unknown type %q", h.Typeflag)
}

func (l *Layer) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errNotRooted
	}
	a, err := l.attributes(h)
	if err != nil {
		return err
	}
	l.root = a
	l.tree.root.attr = a
	return nil
}

// whiteout hides a name of the layers below. If this layer has an entry of
// that name, whether before or after, the entry stays: a whiteout is about
// the layers below only (layer.md, "Whiteouts").
func (l *Layer) whiteout(d *dir, hidden string) error {
	if err := l.tree.hide(d, hidden); err != nil {
		return err
	}
	fd, err := l.tree.handle(d)
	if err != nil {
		return err
	}
	err = unix.Mknodat(fd, hidden, unix.S_IFCHR, 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("mknod whiteout: %w", err)
	}
	return nil
}

// put makes an entry that is no directory with create, which gets the directory's
// descriptor. What has the name already is removed first, as docker and
// containerd do: the last entry of a name counts.
func (l *Layer) put(d *dir, name string, create func(fd int) error) error {
	fd, err := l.tree.handle(d)
	if err != nil {
		return err
	}
	if d.waits[name] != nil {
		l.tree.unwait(d, name)
	}
	err = create(fd)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := l.tree.clear(d, name); err != nil {
		return err
	}
	if fd, err = l.tree.handle(d); err != nil {
		return err
	}
	return create(fd)
}

func (l *Layer) directory(d *dir, name string, h *tar.Header) error {
	child := d.dirs[name]
	if child == nil {
		var err error
		child, err = l.tree.mkdir(d, name)
		if errors.Is(err, unix.EEXIST) {
			// Something else had the name, so the directory of this name below
			// is gone, and this is a new one.
			if err := l.tree.clear(d, name); err != nil {
				return err
			}
			if err := l.tree.hide(d, name); err != nil {
				return err
			}
			child, err = l.tree.mkdir(d, name)
		}
		if err != nil {
			return err
		}
	}
	a, err := l.attributes(h)
	if err != nil {
		return err
	}
	child.attr = a // set on disk by Finish
	return nil
}

func (l *Layer) symlink(d *dir, name string, h *tar.Header) error {
	if h.Linkname == "" {
		return errors.New("a symlink to nothing")
	}
	a, err := l.attributes(h)
	if err != nil {
		return err
	}
	err = l.put(d, name, func(fd int) error {
		if err := unix.Symlinkat(h.Linkname, fd, name); err != nil {
			return fmt.Errorf("symlink: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if d.links == nil {
		d.links = map[string]string{}
	}
	d.links[name] = h.Linkname
	l.own(d, name, a)
	return l.setByName(d, name, a, false)
}

func (l *Layer) fifo(d *dir, name string, h *tar.Header) error {
	a, err := l.attributes(h)
	if err != nil {
		return err
	}
	err = l.put(d, name, func(fd int) error {
		if err := unix.Mknodat(fd, name, unix.S_IFIFO|0o600, 0); err != nil {
			return fmt.Errorf("mkfifo: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.own(d, name, a)
	return l.setByName(d, name, a, true)
}

// device leaves a device node out: in a user namespace nobody can make one,
// but for 0:0, which would be a whiteout of another's making.
func (l *Layer) device(d *dir, name string, h *tar.Header) error {
	a, err := l.attributes(h)
	if err != nil {
		return err
	}
	// It replaces what had the name before, as it would if it were made.
	if err := l.tree.clear(d, name); err != nil {
		return err
	}
	if d.gone[name] {
		if err := l.whiteout(d, name); err != nil {
			return err
		}
	}
	full := path.Join(d.path(), name)
	if d.owners == nil {
		d.owners = map[string]Owner{}
	}
	d.owners[name] = Owner{
		UID: a.uid, GID: a.gid, Mode: a.mode,
		Device: string(rune(deviceType(h.Typeflag))), Major: h.Devmajor, Minor: h.Devminor,
	}
	l.notes.add("device node %s (%s %d:%d) is left out", printable(full), string(rune(deviceType(h.Typeflag))), h.Devmajor, h.Devminor)
	return nil
}

func deviceType(flag byte) byte {
	if flag == tar.TypeBlock {
		return 'b'
	}
	return 'c'
}

// isZero says whether the block is all zeros, so that a hole can stand for it.
func isZero(block []byte) bool {
	return len(block) <= len(zeros) && bytes.Equal(block, zeros[:len(block)])
}

// zeros is never written to. An array of zeros costs no room in the binary.
var zeros [holeBlock]byte

// splitXattr gives the xattr's name if the PAX record holds one.
func splitXattr(record string) (name string, ok bool) {
	return strings.CutPrefix(record, "SCHILY.xattr.")
}
