package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/lockfile"
	"nook/namespaces"
	"nook/rootfs"
)

// mount prepares one --mount.
func (r *buildRun) mount(ctx context.Context, m build.Mount) error {
	switch m.Kind {
	case build.MountTmpfs:
		data := "mode=1777"
		if m.Size > 0 {
			data += fmt.Sprintf(",size=%d", m.Size)
		}
		r.tmpfs = append(r.tmpfs, rootfs.Tmpfs{Target: m.Target, Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: data})
		return nil
	case build.MountCache:
		return r.cache(ctx, m)
	case build.MountSSH:
		return r.agent(ctx, m)
	case build.MountSecret:
		mode := uint32(0o400)
		if m.Mode != 0 {
			mode = uint32(m.Mode) & 0o7777
		}
		r.files = append(r.files, rootfs.File{
			Target: m.Target, Content: m.Data, Mode: mode, UID: m.UID, GID: m.GID,
			Owned: r.w.e.ids.Mode != namespaces.Single,
		})
		return nil
	case build.MountBind:
		return r.show(m)
	}
	return fmt.Errorf("type=%s is not known", m.Kind)
}

// show prepares a --mount=type=bind: an overlay of its own, whose writable
// layer goes with the step.
func (r *buildRun) show(m build.Mount) error {
	if m.From == nil || len(m.From.Layers) == 0 {
		return errors.New("from: it has no files")
	}
	lowers := r.w.lowers(*m.From)
	var dirs []string
	for _, key := range lowers {
		dirs = append(dirs, r.w.e.layers.Dir(key))
	}
	way, kind, err := layers.RealIn(dirs, m.Source)
	if err != nil {
		return err
	}
	if kind == layers.Nothing {
		return fmt.Errorf("%s: %w", m.Source, build.ErrNoSource)
	}
	top := filepath.Join(r.st.dir, fmt.Sprintf("bind%d", len(r.stacks)))
	for _, dir := range []string{top, top + "/mnt", top + "/upper", top + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return r.w.e.noRoom(err)
		}
	}
	r.stacks = append(r.stacks, shown{top, lowers})
	r.binds = append(r.binds, rootfs.Bind{
		Source: filepath.Join(top, "mnt", way), Target: m.Target, Dir: kind == layers.Directory, ReadOnly: m.ReadOnly,
	})
	return nil
}

// shown is the stack of a bind.
type shown struct {
	dir  string
	keys []string
}

func (s shown) stack(e *Engine, number func() int) rootfs.Stack {
	at := func(elem ...string) rootfs.Dir { return rootfs.Dir{Path: filepath.Join(elem...), FD: number()} }
	out := rootfs.Stack{Dir: filepath.Join(s.dir, "mnt"), Upper: at(s.dir, "upper"), Work: at(s.dir, "work")}
	for _, key := range s.keys {
		out.Lowers = append(out.Lowers, at(e.layers.Dir(key)))
	}
	return out
}

// cache prepares a --mount=type=cache: a directory of the data root's, which
// outlives the build.
func (r *buildRun) cache(ctx context.Context, m build.Mount) error {
	sum := sha256.Sum256([]byte(m.ID))
	dir := filepath.Join(r.w.dir, "mounts", hex.EncodeToString(sum[:]))
	unlock, dir, err := lockCache(ctx, dir, m.Sharing)
	if err != nil {
		return err
	}
	r.held = append(r.held, unlock)
	fs := filepath.Join(dir, "fs")
	if !exists(fs) {
		if err := r.newCache(ctx, dir, m); err != nil {
			return err
		}
	}
	r.binds = append(r.binds, rootfs.Bind{Source: fs, Target: m.Target, Dir: true, ReadOnly: m.ReadOnly})
	return nil
}

// lockCache locks a cache as its sharing says, and gives the directory to use:
// a private one that is in use leaves room for another.
func lockCache(ctx context.Context, dir, sharing string) (unlock func(), use string, err error) {
	switch sharing {
	case "", "shared":
		unlock, err = lockfile.RLock(ctx, dir+".lock")
		return unlock, dir, err
	case "locked":
		unlock, err = lockfile.Lock(ctx, dir+".lock")
		return unlock, dir, err
	case "private":
		for n := 0; ; n++ {
			use = dir
			if n > 0 {
				use += "-" + strconv.Itoa(n)
			}
			unlock, err = lockfile.TryLock(use + ".lock")
			if !errors.Is(err, lockfile.ErrHeld) {
				return unlock, use, err
			}
		}
	}
	return nil, "", hint.Errorf("sharing is shared, private or locked", "sharing=%s is not known", sharing)
}

// newCache makes the directory, and gives it the name only when it is whole.
func (r *buildRun) newCache(ctx context.Context, dir string, m build.Mount) error {
	e := r.w.e
	st, err := e.stageStep()
	if err != nil {
		return err
	}
	defer st.close()
	mode := uint32(0o755)
	if m.Mode != 0 {
		mode = unixMode(m.Mode)
	}
	job := &buildJob{Do: jobCopy, Staging: st.dir, Copy: &buildCopy{Dest: "/", Keep: true}, Mode: &mode, UID: m.UID, GID: m.GID}
	if m.From != nil {
		job.Copy.From = r.w.lowers(*m.From)
		job.Copy.Spec = build.SelectSpec{Sources: []string{first(m.Source, "/")}, Literal: true}
	} else {
		job.Do = jobMkdir
		job.Paths = []string{"/"}
	}
	if _, err := r.w.make(ctx, job); err != nil {
		return err
	}
	err = os.Rename(st.dir, dir)
	switch {
	case err == nil:
		st.dir = ""
		return nil
	case exists(filepath.Join(dir, "fs")):
		return nil // another build was first
	}
	return e.noRoom(fmt.Errorf("make the cache: %w", err))
}
