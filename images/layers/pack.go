package layers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

// Pack writes the changes of a container, or of a step of a build, as a layer:
// a tar stream, not packed, that Extract turns into the same files on top of
// the same layers. The same files give the same bytes: entries are sorted,
// times are whole seconds, and no names of users are in it.
//
// Deleted paths are whiteouts, directories that hide the image's are opaque
// (OCI image specification, layer.md). In Single mode the owners are those of
// Owned; without, an entry that was changed keeps the owner that the image
// gives to its path, and one that was added is 0:0: no other is known.
func (v View) Pack(ctx context.Context, w io.Writer) (Packed, error) {
	// A file is four small writes: its header, content, padding and a flush.
	buffered := bufio.NewWriterSize(w, 256<<10)
	out := treetar.NewWriter(buffered)
	out.Seconds, out.Still, out.Note = true, v.Still, v.Note
	out.Ahead(ctx)
	defer out.Stop()
	var done Packed
	owner, release, err := v.owners()
	if err != nil {
		return done, fmt.Errorf("pack: %w", err)
	}
	defer release()
	v.Skip = v.packable(&done.Lacks)
	err = v.walk(ctx, func(c *changed) error {
		if len(c.path) >= unix.PathMax {
			return fmt.Errorf("%s: its name has %d bytes, and in a layer there is room for %d: %w",
				printable(c.path), len(c.path), unix.PathMax-1, unix.ENAMETOOLONG)
		}
		switch {
		case c.kind == Deleted && c.covered:
			return nil
		case c.kind == Deleted:
			above, base := path.Split(c.path)
			return out.Mark(above + whiteoutPrefix + base)
		case c.isDir():
			if err := out.Dir(c.fd, c.path, &c.stat, owner(c.path, &c.stat, c.from)); err != nil || !c.opaque {
				return err
			}
			return out.Mark(path.Join(c.path, opaqueName))
		}
		return leaf(ctx, out, c.dirfd, c.base, c.path, &c.stat, owner(c.path, &c.stat, c.from))
	})
	if err == nil {
		err = errors.Join(out.Close(), buffered.Flush())
	}
	if err != nil {
		return done, fmt.Errorf("pack: %w", err)
	}
	done.Bytes = out.Bytes()
	return done, nil
}

// Packed is what Pack tells of the layer that it wrote.
type Packed struct {
	Bytes int64 // of its files' contents
	// Lacks says that it has not all of Upper: Extract makes another directory
	// of it.
	Lacks bool
}

// packable adds to Skip the names that a layer can't have.
func (v View) packable(lacks *bool) func(name string) bool {
	skip := v.Skip
	return func(name string) bool {
		if skip != nil && skip(name) {
			return true
		}
		if !marked(path.Base(name)) {
			return false
		}
		if v.Note != nil {
			v.Note(leftOut(name))
		}
		*lacks = true
		return true
	}
}

// leaf writes a file, unless the container just removed or replaced it.
func leaf(ctx context.Context, out *treetar.Writer, dirfd int, base, name string, st *unix.Stat_t, o treetar.Owned) error {
	err := out.Leaf(ctx, dirfd, base, name, st, o)
	if errors.Is(err, treetar.ErrReplaced) {
		return nil
	}
	return err
}

// owners answers with the owner of an entry that is from on a layer, or else
// as it is on disk. done lets go of what it reads.
func (v View) owners() (owner ownerFunc, done func(), err error) {
	if v.IDs != Single {
		return func(_ string, st *unix.Stat_t, _ *place) treetar.Owned { return treetar.Owner(st) }, func() {}, nil
	}
	if v.Owned != nil {
		return ownersOf(v.Owned)
	}
	below := ownersBelow(v.Lowers)
	return func(name string, st *unix.Stat_t, from *place) treetar.Owned {
		if from != nil && from.stat.Mode&unix.S_IFMT == st.Mode&unix.S_IFMT {
			if o, ok := below(from.layer, name); ok {
				return treetar.Owned{UID: o.UID, GID: o.GID}
			}
		}
		return treetar.Owner(st)
	}, func() {}, nil
}

type ownerFunc func(name string, st *unix.Stat_t, from *place) treetar.Owned

// ownersOf answers with what stands beside the layer that shows an entry.
func ownersOf(dirs []string) (ownerFunc, func(), error) {
	view, err := openMerged(dirs)
	if err != nil {
		return nil, nil, err
	}
	told := ownersBelow(dirs)
	return func(name string, st *unix.Stat_t, _ *place) treetar.Owned {
		in, at, err := view.lstat(name)
		if err != nil {
			return treetar.Owner(st)
		}
		in.close()
		if o, ok := told(at.layer, name); ok {
			return treetar.Owned{UID: o.UID, GID: o.GID}
		}
		return treetar.Owner(st)
	}, view.close, nil
}

// Inherit writes the owners of what a command in Single mode changed of the
// layers below, beside Upper: as Owned it is complete then, like a layer that
// came out of a tar stream.
func (v View) Inherit(ctx context.Context) error {
	if v.IDs != Single || !slices.ContainsFunc(v.Lowers, func(dir string) bool {
		_, err := os.Lstat(ownersPath(dir))
		return err == nil
	}) {
		return nil
	}
	owner, done, err := v.owners()
	if err != nil {
		return err
	}
	defer done()
	var owners []Owner
	err = v.walk(ctx, func(c *changed) error {
		if c.kind == Deleted || c.path == "." {
			return nil
		}
		if o := owner(c.path, &c.stat, c.from); o.UID != 0 || o.GID != 0 {
			owners = append(owners, Owner{Path: c.path, UID: o.UID, GID: o.GID})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("owners: %w", err)
	}
	return writeOwners(ownersPath(v.Upper), owners)
}
