package layers

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// Finish completes the layer on top of the directories of the layers below,
// topmost first, which are finished themselves:
//
//   - a directory that no entry made, but some entry's path needed, gets the
//     attributes of the one it will be merged with, or 0755 and root as its
//     owner where there is none;
//   - where a layer below has a symlink in its place, and that leads to a
//     directory or to nothing, what is in it moves to where the symlink leads.
//     So an entry lib/x finds its way to usr/lib, as it does when containerd
//     unpacks layers over one another, and the symlink isn't hidden. An entry
//     for the directory itself replaces the symlink;
//   - a hard link to a file of a layer below brings a copy of that file into
//     this layer, under its own name, for the two to be one file.
//
// Then all directories get their attributes, and the descriptors are closed. It
// is called once, for every layer.
func (l *Layer) Finish(ctx context.Context, lowers []string) error {
	defer l.Close()
	if l.Pending() {
		if err := l.complete(ctx, lowers); err != nil {
			return err
		}
	}
	if err := l.setDirs(ctx, l.tree.root, false); err != nil {
		return err
	}
	l.done = true
	return nil
}

func (l *Layer) complete(ctx context.Context, lowers []string) error {
	if l.tree.root.opaque {
		lowers = nil
	}
	below, err := openMerged(lowers)
	if err != nil {
		return err
	}
	defer below.close()
	if err := l.completeDirs(ctx, below); err != nil {
		return err
	}
	both, err := openMerged(append([]string{l.fs}, lowers...))
	if err != nil {
		return err
	}
	defer both.close()
	for _, w := range l.links {
		if err := ctx.Err(); err != nil {
			return err
		}
		w.dir = w.dir.live()
		if w.dropped || !w.dir.attached() {
			continue
		}
		if err := l.linkBelow(both, w); err != nil {
			return entryError(path.Join(w.dir.path(), w.name), l.fs, err)
		}
	}
	return l.completeDirs(ctx, below) // those that a copied file's path needed
}

// completeDirs goes through the implied directories, outer ones first: that is
// the order they were made in. Moving one may add more to the list.
func (l *Layer) completeDirs(ctx context.Context, below *merged) error {
	for i := 0; i < len(l.tree.implied); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := l.tree.implied[i]
		if d.attr != nil || !d.attached() {
			continue
		}
		if err := l.completeDir(d, below); err != nil {
			return entryError(d.path(), l.fs, err)
		}
	}
	return nil
}

func (l *Layer) completeDir(d *dir, below *merged) error {
	if hiddenBelow(d) {
		return nil
	}
	in, at, err := below.lstat(d.path())
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.close()
	switch {
	case at.isLink():
		target, err := readLink(at)
		if err != nil {
			return err
		}
		return l.relocate(d, target, below)
	case at.isDir():
		d.attr, err = l.inherit(at, d.path())
		return err
	}
	return nil
}

// hiddenBelow says whether the directory is not merged with one below.
func hiddenBelow(d *dir) bool {
	if d.fresh {
		return true
	}
	for d = d.parent; d != nil; d = d.parent {
		if d.opaque {
			return true
		}
	}
	return false
}

// inherit reads the attributes of a directory of a layer below.
func (l *Layer) inherit(at *place, name string) (*attributes, error) {
	fd, err := unix.Openat(at.dirfd, at.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the directory of a layer below: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	xattrs, err := readXattrs(fd)
	if err != nil {
		return nil, err
	}
	a := &attributes{
		mode: at.stat.Mode & 0o7777, uid: at.stat.Uid, gid: at.stat.Gid,
		atime: at.stat.Atim, mtime: at.stat.Mtim, xattrs: xattrs,
	}
	if o, ok := l.ownerBelow(at.layer, name); ok {
		a.uid, a.gid = o.UID, o.GID
	}
	return a, nil
}

// ownerBelow is the image's owner of a file that is 0:0 on disk in Single mode.
func (l *Layer) ownerBelow(layer int, name string) (Owner, bool) {
	if l.ids != Single || l.belowOwners == nil {
		return Owner{}, false
	}
	return l.belowOwners(layer, name)
}

// relocate moves what is in d to where the symlink leads that the layers below
// have in its place. If that is a file, or a circle, the directory stays and
// hides it.
func (l *Layer) relocate(d *dir, target string, below *merged) error {
	_, stat, err := below.resolve(d.path(), true)
	switch {
	case errors.Is(err, unix.ENOENT): // made by walk
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil
	case err != nil:
		return err
	case stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	}
	if d.moves >= maxLinks {
		return nil
	}
	to, err := l.tree.walk(d.parent, target, true)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG) {
		return nil
	}
	if err != nil {
		return err
	}
	for above := to; above != nil; above = above.parent {
		if above == d {
			return nil
		}
	}
	to.moves = max(to.moves, d.moves+1)
	return l.merge(d, to)
}

// merge moves all that is in d to the directory to, and removes d.
func (l *Layer) merge(d, to *dir) error {
	if d.opaque {
		if err := l.tree.setOpaque(to); err != nil {
			return err
		}
	}
	from, err := l.tree.handle(d)
	if err != nil {
		return err
	}
	names, err := treetar.Names(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if child, twin := d.dirs[name], to.dirs[name]; child != nil && twin != nil {
			if twin.attr == nil {
				twin.attr = child.attr
			}
			if err := l.merge(child, twin); err != nil {
				return err
			}
			continue
		}
		if err := l.move(d, to, name); err != nil {
			return err
		}
	}
	for name, w := range d.waits {
		if to.waits == nil {
			to.waits = map[string]*link{}
		}
		w.dir = to
		to.waits[name] = w
	}
	l.tree.forget(d)
	above, err := l.tree.handle(d.parent)
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(above, d.name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("rmdir: %w", err)
	}
	delete(d.parent.dirs, d.name)
	d.moved = to
	return nil
}

// move moves one entry, replacing one of the same name.
func (l *Layer) move(d, to *dir, name string) error {
	rename := func() error {
		to, err := l.tree.handle(to)
		if err != nil {
			return err
		}
		from, err := l.tree.handle(d)
		if err != nil {
			return err
		}
		return unix.Renameat2(from, name, to, name, unix.RENAME_NOREPLACE)
	}
	err := rename()
	if errors.Is(err, unix.EEXIST) {
		if err := l.tree.clear(to, name); err != nil {
			return err
		}
		err = rename()
	}
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", printable(name), printable(to.path()), err)
	}
	if child := d.dirs[name]; child != nil {
		if to.dirs == nil {
			to.dirs = map[string]*dir{}
		}
		to.dirs[name] = child
		child.parent = to
		delete(d.dirs, name)
	}
	to.links = carry(d.links, to.links, name)
	to.owners = carry(d.owners, to.owners, name)
	to.gone = carry(d.gone, to.gone, name)
	return nil
}

// carry copies one key's value, if there is one.
func carry[V any](from, to map[string]V, name string) map[string]V {
	v, ok := from[name]
	if !ok {
		return to
	}
	if to == nil {
		to = map[string]V{}
	}
	to[name] = v
	return to
}

// linkBelow makes a hard link whose target wasn't in the layer when its entry
// came: it may be by now, or else it is copied from below to its own path.
func (l *Layer) linkBelow(both *merged, w *link) error {
	target, stat, err := both.resolve(w.target, false)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("a hard link to %s, which is in no layer", printable(w.target))
	}
	if err != nil {
		return fmt.Errorf("a hard link to %s: %w", printable(w.target), err)
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("a hard link to %s, which is a directory", printable(w.target))
	}
	above, base := path.Split(target)
	from, err := l.tree.walk(l.tree.root, above, true)
	if err != nil {
		return err
	}
	in, at, err := both.lstat(target)
	if err != nil {
		return fmt.Errorf("a hard link to %s: %w", printable(w.target), err)
	}
	defer in.close()
	if at.layer > 0 {
		if err := l.copyUp(at, from, base, target); err != nil {
			return fmt.Errorf("copy %s from a layer below: %w", printable(target), err)
		}
	}
	return l.linkTo(from, base, w.dir, w.name)
}

func (l *Layer) copyUp(at *place, to *dir, name, target string) error {
	fd, err := l.tree.handle(to)
	if err != nil {
		return err
	}
	if err := copyLeaf(at, fd, name); err != nil {
		return err
	}
	if at.isLink() {
		text, err := readLink(at)
		if err != nil {
			return err
		}
		if to.links == nil {
			to.links = map[string]string{}
		}
		to.links[name] = text
	}
	// Index 0 of the view is this layer.
	if o, ok := l.ownerBelow(at.layer-1, target); ok {
		to.owners = carry(map[string]Owner{name: o}, to.owners, name)
	}
	return nil
}
