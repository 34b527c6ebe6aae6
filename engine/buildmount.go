package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

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
		if m.Mode != nil {
			mode = uint32(*m.Mode) & 0o7777
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
	dir, err := r.cacheOf(m)
	if err != nil {
		return err
	}
	fs := filepath.Join(dir, "fs")
	if !exists(fs) {
		if err := r.newCache(ctx, dir, m); err != nil {
			return err
		}
	}
	r.binds = append(r.binds, rootfs.Bind{Source: fs, Target: m.Target, Dir: true, ReadOnly: m.ReadOnly})
	return nil
}

// cacheDir is where the cache of an id lies.
func (w *worker) cacheDir(id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(w.dir, "mounts", hex.EncodeToString(sum[:]))
}

// lockCaches takes the locks of all caches of the step that others are waited
// for: each once, as the strongest sharing says, in an order that all steps
// have, so that no two wait for each other.
func (r *buildRun) lockCaches(ctx context.Context) error {
	locked := map[string]bool{}
	for _, m := range r.spec.Mounts {
		if m.Kind == build.MountCache && m.Sharing != "private" {
			dir := r.w.cacheDir(m.ID)
			locked[dir] = locked[dir] || m.Sharing == "locked"
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(locked)) {
		lock := lockfile.RLock
		if locked[dir] {
			lock = lockfile.Lock
		}
		unlock, err := lock(ctx, dir+".lock")
		if err != nil {
			return err
		}
		r.held = append(r.held, unlock)
		usedNow(dir)
	}
	return nil
}

// usedNow notes the time for a prune: that of the lock is when it was used last.
func usedNow(dir string) {
	now := time.Now()
	_ = os.Chtimes(dir+".lock", now, now) // else it may go sooner
}

// cacheOf is the directory of a cache that is locked already, or of a private
// one that nobody uses.
func (r *buildRun) cacheOf(m build.Mount) (string, error) {
	dir := r.w.cacheDir(m.ID)
	switch m.Sharing {
	case "", "shared", "locked":
		return dir, nil
	case "private":
		for n := 0; ; n++ {
			use := dir
			if n > 0 {
				use += "-" + strconv.Itoa(n)
			}
			unlock, err := lockfile.TryLock(use + ".lock")
			if errors.Is(err, lockfile.ErrHeld) {
				continue
			}
			if err == nil {
				r.held = append(r.held, unlock)
				usedNow(use)
			}
			return use, err
		}
	}
	return "", hint.Errorf("sharing is shared, private or locked", "sharing=%s is not known", m.Sharing)
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
	if m.Mode != nil {
		mode = uint32(*m.Mode) & 0o7777
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
