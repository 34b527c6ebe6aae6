package layers

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tree knows the directories and symlinks of a layer that is being unpacked.
// The directory it stands for was empty at first and nobody else writes to it,
// so it needs no system call to find where a path of the layer leads, and none
// that the path could mislead: each is made with one component and the
// descriptor of a directory.
type tree struct {
	root *dir
	// open are the directories with a descriptor, the root apart, at most maxOpen
	// of them, those first that were not asked for the longest.
	open []*dir
	// implied are directories that some entry's path needed and no entry
	// made, in the order they were met.
	implied []*dir
	// last and lastDir remember the last answer of parent.
	last    string
	lastDir *dir
}

// dir is one directory of the layer.
type dir struct {
	parent *dir // nil for the root
	name   string
	depth  int
	fd     int // -1 when closed

	dirs   map[string]*dir
	links  map[string]string // symlinks and their targets
	gone   map[string]bool   // names that don't show what is below, see hide
	owners map[string]Owner  // what the file system can't hold, of entries that are no directories
	waits  map[string]*link  // hard links to files that this layer doesn't have (yet)

	// attr is nil for an implied directory, until Finish.
	attr *attributes
	// opaque says that nothing in the directory of this name below shows.
	opaque bool
	// fresh says that this is not the directory of this name below at all: it
	// was hidden before this one was made. So it is opaque as well.
	fresh bool
	// moved is where Finish moved the contents of the directory, which is
	// then no more.
	moved *dir
	// removed says that an entry replaced the directory.
	removed bool
	// moves counts how often the contents were moved, see relocate.
	moves int
}

const (
	// maxOpen bounds the descriptors of one layer.
	maxOpen = 64
	// maxDepth is how deep directories of one letter can nest in a path that
	// the kernel takes, PATH_MAX.
	maxDepth = unix.PathMax / 2
	// maxLinks is the kernel's bound on the symlinks of one lookup.
	maxLinks = 40
)

// errAbsent says that the layer itself has no such directory.
var errAbsent = errors.New("not in this layer")

func openTree(path string) (*tree, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	// A data root with the set-group-id bit would pass its group on to all that
	// is made here.
	err = unix.Fchown(fd, 0, 0)
	if err == nil {
		err = unix.Fchmod(fd, 0o700)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "take over", Path: path, Err: err}
	}
	return &tree{root: &dir{fd: fd}}, nil
}

func (t *tree) close() {
	for _, d := range t.open {
		d.closeFD()
	}
	t.open = nil
	t.root.closeFD()
}

func (d *dir) closeFD() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
		d.fd = -1
	}
}

// path is the directory's path in the layer, "." for the root. It has no
// symlinks.
func (d *dir) path() string {
	if d.parent == nil {
		return "."
	}
	var parts []string
	for ; d.parent != nil; d = d.parent {
		parts = append(parts, d.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// live is where the contents of the directory are now.
func (d *dir) live() *dir {
	for d.moved != nil {
		d = d.moved
	}
	return d
}

// attached says whether the directory is still part of the tree.
func (d *dir) attached() bool {
	for ; d != nil; d = d.parent {
		if d.removed || d.moved != nil {
			return false
		}
	}
	return true
}

// handle is a descriptor of the directory, good through the next call and no
// longer: it is among the younger half of the open ones then, and one call
// closes fewer than half. Those of the nearest directories above that had to be
// opened for it stay open too: what is beside d comes next.
func (t *tree) handle(d *dir) (int, error) {
	if d.fd >= 0 {
		if i := slices.Index(t.open, d); i >= 0 && i < len(t.open)-maxOpen/2 {
			t.open = append(append(t.open[:i], t.open[i+1:]...), d)
		}
		return d.fd, nil
	}
	var missing []*dir
	above := d
	for ; above.fd < 0; above = above.parent {
		missing = append(missing, above)
	}
	fd, kept := above.fd, true
	for i := len(missing) - 1; i >= 0; i-- {
		next, err := unix.Openat(fd, missing[i].name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !kept {
			_ = unix.Close(fd)
		}
		if err != nil {
			return -1, fmt.Errorf("open directory: %w", err)
		}
		if fd, kept = next, i < maxOpen/4; kept {
			t.keep(missing[i], fd)
		}
	}
	return fd, nil
}

func (t *tree) keep(d *dir, fd int) {
	if len(t.open) == maxOpen {
		t.open[0].closeFD()
		t.open = append(t.open[:0], t.open[1:]...)
	}
	d.fd = fd
	t.open = append(t.open, d)
}

// forget closes the descriptors of d and of what is in it.
func (t *tree) forget(d *dir) {
	t.last, t.lastDir = "", nil
	t.open = slices.DeleteFunc(t.open, func(o *dir) bool {
		for above := o; above != nil; above = above.parent {
			if above == d {
				o.closeFD()
				return true
			}
		}
		return false
	})
}

// parent finds the directory that an entry of the cleaned name goes to, making
// what is missing of it.
func (t *tree) parent(name string) (*dir, string, error) {
	above, base := path.Split(name)
	if t.lastDir != nil && t.last == above {
		return t.lastDir, base, nil
	}
	d, err := t.walk(t.root, above, true)
	if err != nil {
		return nil, "", err
	}
	t.last, t.lastDir = above, d
	return d, base, nil
}

// walk finds the directory that unsafePath leads to from the directory from,
// following the symlinks of this layer as after a chroot(2) to its root. What
// is missing is made as an implied directory, or else errAbsent.
func (t *tree) walk(from *dir, unsafePath string, create bool) (*dir, error) {
	d, links := from, 0
	if strings.HasPrefix(unsafePath, "/") {
		d = t.root
	}
	for rest := unsafePath; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if d.parent != nil {
				d = d.parent
			}
			continue
		}
		if next, ok := d.dirs[part]; ok {
			d = next
			continue
		}
		if target, ok := d.links[part]; ok {
			if links++; links > maxLinks {
				return nil, unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				d = t.root
			}
			rest = target + "/" + rest
			continue
		}
		if !create {
			return nil, errAbsent
		}
		next, err := t.imply(d, part)
		if err != nil {
			return nil, err
		}
		d = next
	}
	return d, nil
}

// imply makes a directory that no entry made.
func (t *tree) imply(d *dir, name string) (*dir, error) {
	child, err := t.mkdir(d, name)
	if errors.Is(err, unix.EEXIST) {
		// A whiteout makes way; anything else is an entry of this layer.
		var fd int
		if fd, err = t.handle(d); err != nil {
			return nil, err
		}
		if !isWhiteout(fd, name) {
			return nil, fmt.Errorf("%s: %w", path.Join(d.path(), name), unix.ENOTDIR)
		}
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return nil, fmt.Errorf("unlink: %w", err)
		}
		child, err = t.mkdir(d, name)
	}
	if err != nil {
		return nil, err
	}
	t.implied = append(t.implied, child)
	return child, nil
}

// mkdir makes a directory, for us alone until its attributes are set at the
// end: by then its times don't change any more, and until then no set-group-id
// bit of it is inherited.
func (t *tree) mkdir(d *dir, name string) (*dir, error) {
	if d.depth == maxDepth {
		return nil, unix.ENAMETOOLONG
	}
	fd, err := t.handle(d)
	if err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(fd, name, 0o700); err != nil {
		return nil, fmt.Errorf("mkdir: %w", err)
	}
	child := &dir{parent: d, name: name, depth: d.depth + 1, fd: -1}
	if d.dirs == nil {
		d.dirs = map[string]*dir{}
	}
	d.dirs[name] = child
	if d.gone[name] {
		return child, t.setFresh(child)
	}
	return child, nil
}

// hide notes that whatever a layer below has of this name must not show. A
// file or a whiteout of the name sees to that itself, a directory has to be
// marked.
func (t *tree) hide(d *dir, name string) error {
	if d.gone == nil {
		d.gone = map[string]bool{}
	}
	d.gone[name] = true
	if child := d.dirs[name]; child != nil {
		return t.setFresh(child)
	}
	return nil
}

func (t *tree) setFresh(d *dir) error {
	d.fresh = true
	return t.setOpaque(d)
}

// setOpaque marks the directory at once, so that Finish reads this layer as it
// reads those below. The root can't be marked on disk: overlayfs doesn't look
// at the mark of a layer's root.
func (t *tree) setOpaque(d *dir) error {
	if d.opaque {
		return nil
	}
	d.opaque = true
	if d.parent == nil {
		return nil
	}
	fd, err := t.handle(d)
	if err != nil {
		return err
	}
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("fsetxattr %s: %w", opaqueXattr, err)
	}
	return nil
}

// clear removes the entry of this name, whatever it is.
func (t *tree) clear(d *dir, name string) error {
	fd, err := t.handle(d)
	if err != nil {
		return err
	}
	t.last, t.lastDir = "", nil
	delete(d.links, name)
	delete(d.owners, name)
	t.unwait(d, name)
	child := d.dirs[name]
	if child == nil {
		if err := unix.Unlinkat(fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unlink: %w", err)
		}
		return nil
	}
	t.forget(child)
	child.removed = true
	delete(d.dirs, name)
	// The path is ours but for its last component, which is not followed.
	if err := os.RemoveAll(procPath(fd) + "/" + name); err != nil {
		return fmt.Errorf("remove directory: %w", err)
	}
	return nil
}

func (t *tree) unwait(d *dir, name string) {
	if w := d.waits[name]; w != nil {
		w.dropped = true
		delete(d.waits, name)
	}
}

// isWhiteout says whether the entry is what overlayfs takes for a whiteout.
// Only this package can have made it: no device of an image is.
func isWhiteout(dirfd int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && whiteoutStat(&st)
}

func whiteoutStat(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}
