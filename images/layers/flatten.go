package layers

import (
	"context"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// Flatten copies what overlayfs would show of the layer directories lowers,
// topmost first, into the empty directory dst, for hosts that refuse overlayfs.
// Blocks are shared with the layers where the file system can. Hard links stay
// hard links. It runs in a stage.
//
// It takes as long as copying the image, and as much room where blocks can't be
// shared.
func Flatten(ctx context.Context, dst string, lowers []string) error {
	view, err := openMerged(lowers)
	if err != nil {
		return fmt.Errorf("flatten: %w", err)
	}
	defer view.close()
	to, err := unix.Open(dst, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("flatten to %s: %w", dst, err)
	}
	defer func() { _ = unix.Close(to) }()
	f := &flattening{ctx: ctx, root: to, dst: dst, links: map[inode]string{}}
	if err := f.dir(view.root(), to, "."); err != nil {
		return err
	}
	if len(lowers) == 0 {
		return nil
	}
	return f.attributes(view.roots[0], to, ".")
}

type flattening struct {
	ctx  context.Context
	root int
	dst  string
	// links are the files with several names, and the first name of each.
	links map[inode]string
}

// inode tells files apart. Two layers may lie on two file systems.
type inode struct{ dev, ino uint64 }

func (f *flattening) dir(from *mergedDir, to int, here string) error {
	names, err := from.names()
	if err != nil {
		return entryError(here, f.dst, err)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := f.ctx.Err(); err != nil {
			return fmt.Errorf("flatten: %w", err)
		}
		at, err := from.lookup(name)
		if err != nil {
			return entryError(path.Join(here, name), f.dst, err)
		}
		if at.isDir() {
			err = f.child(from, at, to, path.Join(here, name))
		} else if err = f.leaf(at, to, path.Join(here, name)); err != nil {
			err = entryError(path.Join(here, name), f.dst, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *flattening) child(from *mergedDir, at *place, to int, here string) error {
	if err := unix.Mkdirat(to, at.name, 0o700); err != nil {
		return entryError(here, f.dst, fmt.Errorf("mkdir: %w", err))
	}
	fd, err := unix.Openat(to, at.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return entryError(here, f.dst, fmt.Errorf("open: %w", err))
	}
	defer func() { _ = unix.Close(fd) }()
	inner, err := from.enter(at.name)
	if err != nil {
		return entryError(here, f.dst, err)
	}
	defer inner.close()
	if err := f.dir(inner, fd, here); err != nil {
		return err
	}
	return f.attributes(inner.parts[0].fd, fd, here)
}

// attributes come last, when the directory doesn't change any more.
func (f *flattening) attributes(from, to int, here string) error {
	var st unix.Stat_t
	err := unix.Fstat(from, &st)
	if err == nil {
		err = chownFromZero(to, ".", &st)
	}
	if err == nil {
		err = unix.Fchmod(to, st.Mode&0o7777)
	}
	if err == nil {
		err = copyXattrs(from, to)
	}
	if err == nil {
		err = copyTimes(to, ".", &st)
	}
	if err != nil {
		return entryError(here, f.dst, err)
	}
	return nil
}

func (f *flattening) leaf(at *place, to int, here string) error {
	id := inode{at.stat.Dev, at.stat.Ino}
	if at.stat.Nlink > 1 {
		if first, ok := f.links[id]; ok {
			return f.link(first, to, at.name)
		}
		f.links[id] = here
	}
	return copyLeaf(at, to, at.name)
}

// link may use a whole path: it is one of our own making, without symlinks.
func (f *flattening) link(first string, to int, name string) error {
	if err := unix.Linkat(f.root, first, to, name, 0); err != nil {
		return fmt.Errorf("link to %s: %w", first, err)
	}
	return nil
}
