package layers

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// View is a container's files: a writable directory on layers.
//
//	v := layers.View{Upper: upper, Lowers: dirs, IDs: layers.Mapped}
//	changes, err := v.Changes(ctx)
//	packed, err := v.Pack(ctx, w) // the changes as a layer
//	err = v.Archive(ctx, w)       // all files
//
// It runs in a stage. The container may be running: what it replaces or
// removes meanwhile is found in the one state or the other, or not at all.
type View struct {
	// Upper is the upper directory of an overlay, with its whiteouts, or,
	// with Full, a directory with all files there are.
	Upper string
	Full  bool
	// Still says that nobody changes Upper meanwhile.
	Still bool
	// OneMount leaves out what is on other mounts than Upper; the mount points
	// themselves are part of Archive.
	OneMount bool
	// Lowers are the directories of the layers, topmost first.
	Lowers []string
	IDs    IDs
	// Owned are the layers that Upper is, or shows, topmost first: in Single
	// mode it is they who tell the owners of what isn't the image's any more;
	// nil: nobody does.
	Owned []string
	// NoRoot leaves the root directory's own attributes out.
	NoRoot bool
	// Latest, if not zero, is the latest time that Archive writes.
	Latest time.Time
	// Skip tells of paths without a leading slash that are no changes; nil:
	// none.
	Skip func(path string) bool
	// Note is told what was left out; nil: nobody listens.
	Note func(text string)
}

// Change is a difference between a container and its image.
type Change struct {
	Kind ChangeKind
	Path string // absolute
}

// ChangeKind is what happened to a path, as docker's API numbers it.
type ChangeKind int

// The kinds of changes.
const (
	Modified ChangeKind = iota
	Added
	Deleted
)

// String is the letter that docker diff prints.
func (k ChangeKind) String() string { return [...]string{"C", "A", "D"}[k] }

// Changes lists what differs from the image, sorted by path. A directory in
// which something changed is Modified itself; what was in one that is Deleted
// is not listed.
func (v View) Changes(ctx context.Context) ([]Change, error) {
	list := []Change{}
	err := v.walk(ctx, func(c *changed) error {
		if c.path != "." {
			list = append(list, Change{c.kind, "/" + c.path})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("compare with the image: %w", err)
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// changed is a change as the walk finds it.
type changed struct {
	kind ChangeKind
	path string // "." for the root
	// dirfd and base are where it stands in the upper directory, and stat
	// what it is; not of Deleted.
	dirfd int
	base  string
	stat  unix.Stat_t
	// fd is that of a directory.
	fd int
	// opaque: a directory that hides the one of the image.
	opaque bool
	// covered: Deleted, and an opaque directory says so already.
	covered bool
	// from is what the image has there and the container changed; nil for
	// none.
	from *place
}

func (c *changed) isDir() bool { return c.kind != Deleted && c.stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// walking is one walk of a View.
type walking struct {
	View
	ctx   context.Context //nolint:containedctx // of one call
	visit func(*changed) error
	mount uint64
}

// compared says how the entries of a directory are told from the image's.
type compared int

const (
	byPresence compared = iota // overlayfs copied it up, so it changed
	byContent                  // all are there; those that differ changed
	hidden                     // an opaque directory is above: all are new
)

func (v View) walk(ctx context.Context, visit func(*changed) error) error {
	up, err := openMerged([]string{v.Upper})
	if err != nil {
		return err
	}
	defer up.close()
	below, err := openMerged(v.Lowers)
	if err != nil {
		return err
	}
	defer below.close()
	w := &walking{View: v, ctx: ctx, visit: visit}
	if v.OneMount {
		if w.mount, err = mountOf(up.roots[0], "."); err != nil {
			return err
		}
	}
	root := &changed{kind: Modified, path: ".", dirfd: up.roots[0], base: ".", fd: up.roots[0]}
	if err := unix.Fstat(root.fd, &root.stat); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	how := byPresence
	if v.Full {
		how = byContent
	}
	if len(below.roots) == 0 {
		return w.dir(root, nil, how, nil)
	}
	var st unix.Stat_t
	if err := unix.Fstat(below.roots[0], &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if !v.NoRoot && !sameRoot(&root.stat, &st) {
		if err := visit(root); err != nil {
			return err
		}
	}
	return w.dir(root, below.root(), how, nil)
}

// sameRoot says whether nobody changed the root directory. A writable layer's
// own is made with the mode of those below and belongs to root, as docker's
// does: that is no change where below it is another's.
func sameRoot(top, below *unix.Stat_t) bool {
	return top.Mode == below.Mode && (top.Uid == 0 && top.Gid == 0 || top.Uid == below.Uid && top.Gid == below.Gid)
}

// unseen is a directory that is a change only if something in it is.
type unseen struct {
	above *unseen
	c     *changed
	seen  bool
}

// show visits a directory, those above it first, unless they were.
func (w *walking) show(u *unseen) error {
	if u == nil || u.seen {
		return nil
	}
	if err := w.show(u.above); err != nil {
		return err
	}
	u.seen = true
	return w.visit(u.c)
}

func (w *walking) tell(above *unseen, c *changed) error {
	if err := w.show(above); err != nil {
		return err
	}
	return w.visit(c)
}

// dir walks a directory. low is the image's, nil for none.
func (w *walking) dir(d *changed, low *mergedDir, how compared, above *unseen) error {
	names, err := treetar.Names(d.fd)
	if err != nil {
		return entryError(d.path, w.Upper, err)
	}
	var missing []string
	if low != nil && how != byPresence {
		if missing, err = lacking(low, names); err != nil {
			return entryError(d.path, w.Upper, err)
		}
	}
	for len(names)+len(missing) > 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if len(names) == 0 || len(missing) > 0 && missing[0] < names[0] {
			name := path.Join(d.path, missing[0])
			missing = missing[1:]
			if w.skips(name) {
				continue
			}
			if err := w.tell(above, &changed{kind: Deleted, path: name, covered: how == hidden}); err != nil {
				return err
			}
			continue
		}
		base := names[0]
		names = names[1:]
		if name := path.Join(d.path, base); !w.skips(name) {
			if err := w.entry(d, base, name, low, how, above); err != nil {
				return entryError(name, w.Upper, err)
			}
		}
	}
	return nil
}

func (w *walking) skips(name string) bool { return w.Skip != nil && w.Skip(name) }

func (w *walking) entry(d *changed, base, name string, low *mergedDir, how compared, above *unseen) error {
	c := &changed{kind: Added, path: name, dirfd: d.fd, base: base, fd: -1}
	err := unix.Fstatat(d.fd, base, &c.stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("fstatat: %w", err)
	}
	if w.OneMount {
		if id, err := mountOf(d.fd, base); err != nil || id != w.mount {
			return err
		}
	}
	if low != nil {
		c.from, err = low.lookup(base)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if how == byPresence && hides(c) {
		if c.from == nil {
			return nil
		}
		return w.tell(above, &changed{kind: Deleted, path: name})
	}
	if c.from != nil {
		c.kind = Modified
	}
	if c.isDir() {
		return w.subdir(c, low, how, above)
	}
	if how == byContent && c.from != nil {
		same, err := sameFile(c)
		if same || err != nil {
			return err
		}
	}
	if how == hidden {
		c.from = nil
	}
	return w.tell(above, c)
}

// hides says whether an entry of an upper directory is a whiteout: a 0:0
// device, or an empty file with the attribute that overlayfs of Linux 6.7 and
// later takes for one (Documentation/filesystems/overlayfs.rst, "whiteouts
// and opaque directories").
func hides(c *changed) bool {
	if whiteoutStat(&c.stat) {
		return true
	}
	if c.stat.Mode&unix.S_IFMT != unix.S_IFREG || c.stat.Size != 0 {
		return false
	}
	fd, err := unix.Openat(c.dirfd, c.base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	_, err = unix.Fgetxattr(fd, "user.overlay.whiteout", nil)
	return err == nil
}

func (w *walking) subdir(c *changed, low *mergedDir, how compared, above *unseen) error {
	fd, err := unix.Openat(c.dirfd, c.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	c.fd = fd
	var below *mergedDir
	if c.from != nil && c.from.isDir() {
		if below, err = low.enter(c.base); err != nil {
			return err
		}
		defer below.close()
	}
	differs := below == nil || how == hidden || !sameAttributes(&c.stat, &c.from.stat)
	if below != nil && how == byPresence && isOpaque(fd) {
		c.opaque, differs, how = true, true, hidden
	}
	if how == hidden {
		c.from = nil
	}
	u := &unseen{above: above, c: c}
	if differs {
		err = w.show(u)
	}
	if err != nil {
		return err
	}
	return w.dir(c, below, how, u)
}

// lacking are the names of the image's directory that are not in names, which
// are sorted.
func lacking(low *mergedDir, names []string) ([]string, error) {
	all, err := low.names()
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	var missing []string
	for _, name := range all {
		if !there[name] {
			missing = append(missing, name)
		}
	}
	return sorted(missing), nil
}

// sameAttributes compares what chown(2) and chmod(2) change.
func sameAttributes(a, b *unix.Stat_t) bool {
	return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid
}

// sameFile compares a file with the image's, of which it is a copy if nobody
// changed it: size and time tell that, as they do for docker.
func sameFile(c *changed) (bool, error) {
	a, b := &c.stat, &c.from.stat
	if !sameAttributes(a, b) || a.Rdev != b.Rdev {
		return false, nil
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.Size == b.Size && a.Mtim == b.Mtim, nil
	case unix.S_IFLNK:
		here, err := readLink(&place{dirfd: c.dirfd, name: c.base})
		if err != nil {
			return false, err
		}
		there, err := readLink(c.from)
		return here == there, err
	}
	return true, nil
}

// mountOf tells mounts apart: on an overlay st_dev differs from file to file.
func mountOf(dirfd int, base string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(dirfd, base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("statx %s: %w", strings.TrimPrefix(base, "."), err)
	}
	return st.Mnt_id, nil
}
