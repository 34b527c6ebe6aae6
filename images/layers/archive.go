package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// Archive writes all files of a container, as docker export does: one tar
// stream, sorted, with times of whole seconds. Mount points are in it without
// what is mounted on them.
func (v View) Archive(ctx context.Context, w io.Writer) error {
	owner, done, err := v.owners()
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer done()
	a := &archiving{View: v, ctx: ctx, out: treetar.NewWriter(w), owner: owner}
	a.out.Seconds, a.out.Latest, a.out.Note = true, v.Latest, v.Note
	err = a.run()
	if err == nil {
		err = a.out.Close()
	}
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

type archiving struct {
	View
	ctx   context.Context //nolint:containedctx // of one call
	out   *treetar.Writer
	owner ownerFunc
	mount uint64
}

func (a *archiving) run() error {
	top := []string{a.Upper}
	if !a.Full {
		top = append(top, a.Lowers...)
	}
	view, err := openMerged(top)
	if err != nil {
		return err
	}
	defer view.close()
	if a.OneMount {
		if a.mount, err = mountOf(view.roots[0], "."); err != nil {
			return err
		}
	}
	var low *mergedDir
	if a.Full && a.IDs == Single {
		below, err := openMerged(a.Lowers)
		if err != nil {
			return err
		}
		defer below.close()
		low = below.root()
	}
	return a.dir(view.root(), low, ".")
}

// dir writes a directory. low is the image's where d alone doesn't tell.
func (a *archiving) dir(d, low *mergedDir, here string) error {
	var st unix.Stat_t
	fd := d.parts[0].fd
	if err := unix.Fstat(fd, &st); err != nil {
		return entryError(here, a.Upper, err)
	}
	if here == "." {
		if err := a.out.Dir(fd, here, &st, treetar.Owner(&st)); err != nil {
			return err
		}
	}
	names, err := d.names()
	if err != nil {
		return entryError(here, a.Upper, err)
	}
	for _, base := range sorted(names) {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if err := a.entry(d, low, base, path.Join(here, base)); err != nil {
			return entryError(path.Join(here, base), a.Upper, err)
		}
	}
	return nil
}

func (a *archiving) entry(d, low *mergedDir, base, name string) error {
	at, err := d.lookup(base)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	owner := a.owner(name, &at.stat, a.from(d, low, at))
	if a.OneMount {
		id, err := mountOf(at.dirfd, base)
		if err != nil {
			return err
		}
		if id != a.mount {
			return a.mountPoint(name, at)
		}
	}
	if !at.isDir() {
		return leaf(a.ctx, a.out, at.dirfd, base, name, &at.stat, owner)
	}
	inner, err := d.enter(base)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer inner.close()
	if err := a.out.Dir(inner.parts[0].fd, name, &at.stat, owner); err != nil {
		return err
	}
	var below *mergedDir
	if low != nil {
		if below, err = low.enter(base); err == nil {
			defer below.close()
		}
	}
	return a.dir(inner, below, name)
}

// from is the entry of a layer that an entry is, or was copied from.
func (a *archiving) from(d, low *mergedDir, at *place) *place {
	if a.IDs != Single {
		return nil
	}
	below := low
	if !a.Full {
		if at.layer > 0 {
			from := *at
			from.layer-- // the first of the view is the upper directory
			return &from
		}
		below = &mergedDir{parts: d.parts[1:]}
	}
	if below == nil {
		return nil
	}
	from, err := below.lookup(at.name)
	if err != nil {
		return nil
	}
	if !a.Full {
		from.layer--
	}
	return from
}

// mountPoint writes what something is mounted on, as empty as it is below.
func (a *archiving) mountPoint(name string, at *place) error {
	st := unix.Stat_t{Mode: unix.S_IFREG | 0o644, Mtim: at.stat.Mtim}
	if !at.isDir() {
		return a.out.Empty(name, &st)
	}
	st.Mode = unix.S_IFDIR | 0o755
	return a.out.Empty(name, &st)
}
