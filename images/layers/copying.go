package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Copying is what Copy puts into a layer.
type Copying struct {
	// From is the tree: directories of layers, topmost first, or, with Host,
	// one that is no layer.
	From []string
	Host bool
	// Only are the paths of the tree that are copied, sorted, with the
	// directories that they are in; nil: all.
	Only []string
	// Skip leaves paths of the tree out; nil: none.
	Skip func(name string) bool
	// Owner is who all files belong to; nil: to whom the tree says.
	Owner *Owned
	// Chmod changes modes; nil: they stay.
	Chmod func(mode uint32, dir bool) uint32
	// Time is what all files get; zero: their own.
	Time time.Time
	// Earlier is a layer, its fs, that the same copy, with an Owner, made before;
	// "": none. A regular file of the tree that Same knows to be in all as it was
	// then is taken from there by a hard link, and nobody looks at it.
	Earlier string
	Same    func(name string) bool
}

// Owned is an owner in an image.
type Owned struct{ UID, GID uint32 }

// copying is one call of Copy.
type copying struct {
	Copying
	caller context.Context //nolint:containedctx // of one call
	ctx    context.Context //nolint:containedctx // ends with the first error
	m      *Making
	tree   *merged
	old    *merged // of Earlier; nil: none
	only   map[string][]string
	group  *errgroup.Group
	whose  func(layer int, name string) (Owner, bool) // of Single; nil: as on disk

	mu     sync.Mutex
	copied []string
	linked int
}

// Copier copies paths of one tree into a layer, directories of it side by side.
type Copier struct{ c *copying }

func (c *copying) begin() {
	c.group, c.ctx = errgroup.WithContext(c.caller)
	c.group.SetLimit(runtime.GOMAXPROCS(0))
}

// Copier opens the tree.
func (m *Making) Copier(ctx context.Context, what Copying) (*Copier, error) {
	tree, err := openMerged(what.From)
	if err != nil {
		return nil, err
	}
	c := &copying{Copying: what, m: m, tree: tree, caller: ctx}
	if what.Earlier != "" && what.Owner != nil {
		// Without it all is copied: it may be gone by now.
		c.old, _ = openMerged([]string{what.Earlier})
	}
	c.begin()
	if m.ids == Single && !what.Host && what.Owner == nil {
		var mu sync.Mutex
		read := ownersBelow(what.From)
		c.whose = func(layer int, name string) (Owner, bool) {
			mu.Lock()
			defer mu.Unlock()
			return read(layer, name)
		}
	}
	if what.Only != nil {
		c.only = inDirs(what.Only)
	}
	return &Copier{c}, nil
}

// inDirs sorts paths by the directories that they are in.
func inDirs(paths []string) map[string][]string {
	all := map[string][]string{}
	for len(paths) > 0 {
		dir, _ := path.Split(paths[0])
		n := 0 // those of one directory follow each other, but for what is below it
		var names []string
		for n < len(paths) && strings.HasPrefix(paths[n], dir) && strings.IndexByte(paths[n][len(dir):], '/') < 0 {
			names = append(names, paths[n][len(dir):])
			n++
		}
		at := path.Clean(dir)
		all[at] = append(all[at], names...)
		paths = paths[n:]
	}
	return all
}

// Taken tells what Copying.Earlier was good for: how many files were linked from
// it, whose bytes aren't counted, and what of the tree, directories aside, was
// copied anew.
func (c *Copier) Taken() (linked int, copied []string) { return c.c.linked, c.c.copied }

// Wait waits for what was begun and gives its first error. What may meet in
// one directory of the layer is to be copied one after the other.
func (c *Copier) Wait() error {
	defer c.c.begin()
	return c.c.group.Wait()
}

// Close lets go of the tree.
func (c *Copier) Close() {
	_ = c.c.group.Wait()
	c.c.tree.close()
	if c.c.old != nil {
		c.c.old.close()
	}
}

// List are the names in a directory of the tree, sorted.
func (c *Copier) List(way string) ([]string, error) {
	d, err := c.c.tree.open(way)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(way), err)
	}
	defer d.close()
	return c.c.list(d, way)
}

// Open opens a regular file of the tree.
func (c *Copier) Open(way string) (*os.File, error) { return c.c.tree.openFile(way) }

// ReadFile reads a small file of the view, following symlinks.
func (m *Making) ReadFile(unsafePath string, most int64) ([]byte, error) {
	way, _, err := m.both.real(unsafePath)
	if err != nil {
		return nil, err
	}
	f, err := m.both.openFile(way)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

func (v *merged) openFile(way string) (*os.File, error) {
	in, at, err := v.lstat(way)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(way), err)
	}
	defer in.close()
	if at.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s: it is no file", printable(way))
	}
	fd, err := unix.Openat(at.dirfd, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: open: %w", printable(way), err)
	}
	return os.NewFile(uintptr(fd), way), nil
}

// Real follows the symlinks of a path of the tree.
func (c *Copier) Real(unsafePath string) (string, Kind, error) { return c.c.tree.real(unsafePath) }

// Contents copies what is in a directory of the tree into a directory of the
// layer, whose own attributes stay. s is closed when all is in it.
func (c *Copier) Contents(from string, s *Spot) error {
	d, err := c.c.tree.open(from)
	if err != nil {
		_ = s.Close()
		return fmt.Errorf("%s: %w", printable(from), err)
	}
	if c.c.old != nil {
		s.old, _ = c.c.old.open(s.path)
	}
	return c.c.dir(d, from, s)
}

// Entry copies one path of the tree, with all below it, to a name in a
// directory of the layer.
func (c *Copier) Entry(from string, s *Spot, name string) error {
	above, base := path.Split(from)
	d, err := c.c.tree.open(path.Clean(above))
	if err != nil {
		return fmt.Errorf("%s: %w", printable(from), err)
	}
	defer d.close()
	return c.c.entry(d, base, from, s, name, false)
}

// Dressed makes a directory of the layer look like one of the tree.
func (c *Copier) Dressed(from string, s *Spot, name string) (*Spot, error) {
	above, base := path.Split(from)
	d, err := c.c.tree.open(path.Clean(above))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(from), err)
	}
	defer d.close()
	at, err := d.lookup(base)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(from), err)
	}
	if !at.isDir() {
		return nil, fmt.Errorf("%s: %w", printable(from), unix.ENOTDIR)
	}
	return c.c.into(at, from, s, name)
}

// open opens a directory of a view by its path without symlinks.
func (v *merged) open(name string) (*mergedDir, error) {
	d := v.root()
	if name == "." || name == "" {
		return d, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := d.enter(part)
		d.close()
		if err != nil {
			return nil, err
		}
		d = next
	}
	return d, nil
}

// list are the names of a directory that are copied, sorted.
func (c *copying) list(d *mergedDir, from string) ([]string, error) {
	if c.only != nil {
		return c.only[from], nil
	}
	names, err := d.names()
	slices.Sort(names)
	return names, err
}

// dir copies the contents of a directory and closes both.
func (c *copying) dir(d *mergedDir, from string, s *Spot) (err error) {
	defer func() {
		d.close()
		if closed := s.Close(); err == nil {
			err = closed
		}
	}()
	names, err := c.list(d, from)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(from), err)
	}
	if s.old != nil {
		defer s.old.close()
	}
	// Nothing is in the way in a directory that was just made, of names that all
	// differ.
	fresh := s.fresh
	s.fresh = false
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(d, name, path.Join(from, name), s, name, fresh); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one. Fresh says that nothing is under its name.
func (c *copying) entry(d *mergedDir, base, from string, s *Spot, name string, fresh bool) error {
	if c.Skip != nil && c.Skip(from) {
		return nil
	}
	if marked(name) {
		c.took(from)
		c.m.leaveOut(path.Join(s.path, name))
		return nil
	}
	if s.old != nil && c.Same(from) {
		if linked, err := c.link(s, name, fresh); linked || err != nil {
			return err
		}
	}
	at, err := d.lookup(base)
	if err != nil {
		return fmt.Errorf("%s: %w", printable(from), err)
	}
	if !at.isDir() {
		err := c.leaf(at, from, s, name, fresh)
		switch {
		case errors.Is(err, ErrIsDirectory):
			return fmt.Errorf("%s: %w", inImage(s.path, name), err)
		case err != nil:
			return fmt.Errorf("%s: %w", printable(from), err)
		}
		return nil
	}
	in, err := c.into(at, from, s, name)
	if err != nil {
		return err
	}
	sub, err := d.enter(base)
	if err != nil {
		_ = in.Close()
		return fmt.Errorf("%s: %w", printable(from), err)
	}
	if s.old != nil {
		in.old, _ = s.old.enter(name)
	}
	work := func() error { return c.dir(sub, from, in) }
	if c.group.TryGo(work) {
		return nil
	}
	return work()
}

// into makes, or finds, the directory that a directory of the tree becomes.
func (c *copying) into(at *place, from string, s *Spot, name string) (*Spot, error) {
	look, err := c.look(at, from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", printable(from), err)
	}
	in, err := s.Enter(name)
	switch {
	case err == nil:
		if err = in.Set(look); err == nil {
			c.m.own(in.path, look)
			return in, nil
		}
		_ = in.Close()
	case errors.Is(err, unix.ENOENT):
		if in, err = s.Mkdir(name, look); err == nil {
			return in, nil
		}
	case errors.Is(err, unix.ENOTDIR):
		err = s.notDirectory(name)
	}
	return nil, fmt.Errorf("%s: %w", inImage(s.path, name), err)
}

// look is what a copy looks like.
func (c *copying) look(at *place, from string) (Look, error) {
	look := Look{
		Mode: at.stat.Mode & 0o7777, UID: at.stat.Uid, GID: at.stat.Gid,
		Time: time.Unix(at.stat.Mtim.Sec, at.stat.Mtim.Nsec),
	}
	if !c.Time.IsZero() {
		look.Time = c.Time
	}
	if c.Chmod != nil && !at.isLink() {
		look.Mode = c.Chmod(look.Mode, at.isDir())
	}
	if c.Owner != nil {
		look.UID, look.GID = c.Owner.UID, c.Owner.GID
	} else if c.whose != nil {
		if o, ok := c.whose(at.layer, from); ok {
			look.UID, look.GID = o.UID, o.GID
		}
	}
	if !at.isDir() {
		return look, nil
	}
	fd, err := openDir(at.dirfd, at.name)
	if err != nil {
		return look, err
	}
	defer unix.Close(fd)
	look.xattrs, err = readXattrs(fd)
	return look, err
}

// leaf copies what is no directory.
func (c *copying) leaf(at *place, from string, s *Spot, name string, fresh bool) (err error) {
	if !fresh {
		if err := s.clear(name); err != nil {
			return err
		}
	}
	look, err := c.look(at, from)
	if err != nil {
		return err
	}
	c.took(from)
	to := path.Join(s.path, name)
	if at.stat.Nlink > 1 && at.stat.Mode&unix.S_IFMT == unix.S_IFREG {
		// Files with several names are rare: one at a time, so that the first is
		// whole when the second is linked to it.
		c.m.linking.Lock()
		defer c.m.linking.Unlock()
		id := fileID{at.stat.Dev, at.stat.Ino}
		if first, found := c.m.links[id]; found && unix.Linkat(c.m.root, first, s.fd, name, 0) == nil {
			c.m.own(to, look)
			return nil
		}
		defer func() {
			if err == nil {
				c.m.links[id] = to
			}
		}()
	}
	switch at.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.file(at, s, name, look)
	case unix.S_IFLNK:
		var target string
		if target, err = readLink(at); err == nil {
			err = s.Symlink(name, target, look)
		}
	case unix.S_IFIFO:
		err = s.Fifo(name, look)
	case unix.S_IFSOCK:
		return nil // as docker: a socket is nothing without its process
	default:
		err = fmt.Errorf("its type %#o can't be copied", at.stat.Mode&unix.S_IFMT)
	}
	if err == nil {
		c.m.own(to, look)
	}
	return err
}

// link takes a file from the layer that was made before. What is in a layer
// never changes, so the two can be one file; it is as if it was packed and
// unpacked with both. Whatever is in the way, the file is copied instead.
func (c *copying) link(s *Spot, name string, fresh bool) (bool, error) {
	if !fresh {
		if err := s.clear(name); err != nil {
			return false, fmt.Errorf("%s: %w", inImage(s.path, name), err)
		}
	}
	if err := unix.Linkat(s.old.parts[0].fd, name, s.fd, name, 0); err != nil {
		return false, nil //nolint:nilerr // then it is copied
	}
	if c.m.ids == Single {
		c.m.own(path.Join(s.path, name), Look{UID: c.Owner.UID, GID: c.Owner.GID})
	}
	c.m.count(0)
	c.mu.Lock()
	c.linked++
	c.mu.Unlock()
	return true, nil
}

// took notes that something is copied in spite of Earlier.
func (c *copying) took(from string) {
	if c.old == nil {
		return
	}
	c.mu.Lock()
	c.copied = append(c.copied, from)
	c.mu.Unlock()
}

// small is a file that is copied with one read and one write.
const small = 64 << 10

func (c *copying) file(at *place, s *Spot, name string, look Look) (err error) {
	from, err := unix.Openat(at.dirfd, at.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(from)
	if look.xattrs, err = readXattrs(from); err != nil {
		return err
	}
	return s.file(name, look, at.stat.Size, func(to int) error {
		if at.stat.Size > small {
			return copyContent(from, to, at.stat.Size)
		}
		buf := make([]byte, at.stat.Size)
		n, err := unix.Pread(from, buf, 0)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n < len(buf) {
			return fmt.Errorf("read: %w: it was cut short meanwhile", io.ErrUnexpectedEOF)
		}
		return writeAll(to, buf, 0)
	})
}
