package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Contents is what overlayfs would show of a stack of layers, for digests of
// the files in it: as a Copier would copy them, with no Copying.Owner. It runs
// in a stage.
type Contents struct {
	tree  *merged
	whose func(layer int, name string) (Owner, bool)
	ids   IDs
	links map[fileID]string
}

// OpenContents opens directories of layers, topmost first.
func OpenContents(dirs []string, ids IDs) (*Contents, error) {
	tree, err := openMerged(dirs)
	if err != nil {
		return nil, err
	}
	return &Contents{tree, ownersBelow(dirs), ids, map[fileID]string{}}, nil
}

// Close lets go of the directories.
func (c *Contents) Close() { c.tree.close() }

// Real follows the symlinks of a path.
func (c *Contents) Real(unsafePath string) (string, Kind, error) { return c.tree.real(unsafePath) }

// List are the names in a directory, sorted.
func (c *Contents) List(way string) ([]string, error) {
	d, err := c.tree.open(way)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(way), err)
	}
	defer d.close()
	names, err := d.names()
	slices.Sort(names)
	return names, err
}

// Describe writes what there is to copy of a path and all below it, but for
// what skip, nil for nothing, leaves out: names relative to the path, kinds,
// modes, owners, targets of links, attributes and digests of contents. Times
// are left out, and of the path itself the name.
func (c *Contents) Describe(ctx context.Context, w io.Writer, way string, skip func(name string) bool) error {
	above, base := path.Split(way)
	if way == "." {
		return c.dir(ctx, w, c.tree.root(), ".", "", skip)
	}
	d, err := c.tree.open(path.Clean(above))
	if err != nil {
		return fmt.Errorf("%s: %w", printable(way), err)
	}
	defer d.close()
	return c.entry(ctx, w, d, base, way, "", skip)
}

// Look writes what a directory itself is, without what is in it.
func (c *Contents) Look(w io.Writer, way string) error {
	d, at, err := c.tree.lstat(way)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(way), err)
	}
	defer d.close()
	return c.line(w, at, way, path.Base(way))
}

// dir describes what is in a directory, and closes it.
func (c *Contents) dir(ctx context.Context, w io.Writer, d *mergedDir, way, shown string, skip func(string) bool) error {
	defer d.close()
	names, err := d.names()
	if err != nil {
		return fmt.Errorf("%s: %w", printable(way), err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(ctx, w, d, name, path.Join(way, name), path.Join(shown, name), skip); err != nil {
			return err
		}
	}
	return nil
}

func (c *Contents) entry(ctx context.Context, w io.Writer, d *mergedDir, base, way, shown string, skip func(string) bool) error {
	if skip != nil && skip(way) {
		return nil
	}
	at, err := d.lookup(base)
	if err == nil {
		// Of the path's own directory only what is in it is copied.
		if shown != "" || !at.isDir() {
			err = c.line(w, at, way, shown)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", printable(way), err)
	}
	if !at.isDir() {
		return nil
	}
	sub, err := d.enter(base)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(way), err)
	}
	return c.dir(ctx, w, sub, way, shown, skip)
}

// line describes one entry.
func (c *Contents) line(w io.Writer, at *place, way, shown string) (err error) {
	uid, gid := at.stat.Uid, at.stat.Gid
	if o, ok := c.whose(at.layer, way); ok && c.ids == Single {
		uid, gid = o.UID, o.GID
	}
	content := ""
	var xattrs []xattr
	switch at.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		content, xattrs, err = c.file(at, shown)
	case unix.S_IFDIR:
		var fd int
		if fd, err = openDir(at.dirfd, at.name); err == nil {
			xattrs, err = readXattrs(fd)
			_ = unix.Close(fd)
		}
	case unix.S_IFLNK:
		content, err = readLink(at)
	}
	if err != nil {
		return err
	}
	slices.SortFunc(xattrs, func(a, b xattr) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	_, err = fmt.Fprintf(w, "%q %o %d:%d %q %q\n", shown, at.stat.Mode, uid, gid, content, xattrs)
	return err
}

// file gives the digest of a file, or the name that it has, too.
func (c *Contents) file(at *place, shown string) (content string, xattrs []xattr, err error) {
	fd, err := unix.Openat(at.dirfd, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	if xattrs, err = readXattrs(fd); err != nil {
		return "", nil, err
	}
	if at.stat.Nlink > 1 {
		id := fileID{at.stat.Dev, at.stat.Ino}
		if first, found := c.links[id]; found {
			return "as " + first, xattrs, nil
		}
		c.links[id] = shown
	}
	sum := sha256.New()
	buf := make([]byte, min(at.stat.Size+1, 256<<10))
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return hex.EncodeToString(sum.Sum(nil)), xattrs, nil
		}
		sum.Write(buf[:n])
	}
}
