package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/images/layers"
)

// buildCopy is a COPY or ADD as the stage gets it.
type buildCopy struct {
	From    []string         `json:"from,omitempty"` // keys of layers, topmost first
	Dir     string           `json:"dir,omitempty"`  // or a directory of the host
	Spec    build.SelectSpec `json:"spec"`           // of layers: what is to be found
	Items   []copyItem       `json:"items,omitempty"`
	Only    names            `json:"only"` // null: all
	Dest    string           `json:"dest"`
	ToDir   bool             `json:"toDir,omitempty"`
	Chown   string           `json:"chown,omitempty"`
	Keep    bool             `json:"keep,omitempty"`
	Chmod   string           `json:"chmod,omitempty"`
	Unpack  bool             `json:"unpack,omitempty"`
	Parents bool             `json:"parents,omitempty"`
	Link    bool             `json:"link,omitempty"` // the layers below tell names of users, and no more
	Time    *time.Time       `json:"time,omitempty"`
	// Earlier is the key of the layer that the same COPY made before, and Changed
	// are those of Only that can't be taken from it, sorted.
	Earlier string `json:"earlier,omitempty"`
	Changed names  `json:"changed"`
}

// Copy puts a selection on top of a state.
func (w *worker) Copy(ctx context.Context, below build.State, spec build.CopySpec) (state build.State, err error) {
	if _, err := parseChmod(spec.Chmod); err != nil {
		return state, err
	}
	if below, err = w.local(ctx, below); err != nil {
		return state, err
	}
	st, err := w.e.stageStep()
	if err != nil {
		return state, err
	}
	defer st.close()
	st.linked = spec.Link
	job := &buildJob{Do: jobCopy, Staging: st.dir, Layers: w.lowers(below), Epoch: epochOf(spec.Epoch)}
	c := &buildCopy{
		Spec: spec.From.Spec, Dest: spec.Dest, ToDir: spec.ToDir, Chown: spec.Chown, Keep: spec.KeepOwner,
		Chmod: spec.Chmod, Unpack: spec.Unpack, Parents: spec.From.Spec.Parents, Link: spec.Link,
	}
	if !spec.Time.IsZero() {
		c.Time = &spec.Time
	}
	job.Copy = c
	found, _ := spec.From.Found.(*selected)
	if found != nil {
		c.Items, c.Only = found.items, found.only
	}
	var temporary string
	switch tree := spec.From.Tree; {
	case tree.State != nil:
		from, err := w.local(ctx, *tree.State)
		if err != nil {
			return state, err
		}
		c.From = w.lowers(from)
	case tree.Dir != "":
		c.Dir = tree.Dir
	default:
		temporary = filepath.Join(st.dir, "given")
		c.Dir, c.Only = temporary, nil
		if err := writeFiles(temporary, tree.Files, w.stepTime(spec.Epoch)); err != nil {
			return state, err
		}
	}
	if err := w.readyRoot(st, below, spec.Link); err != nil {
		return state, err
	}
	var before *earlier
	if found != nil && c.Dir != "" && temporary == "" && !spec.Unpack && !w.fetched(c.Dir) && apart(c) {
		before = w.earlier(c, below, spec.Epoch)
		c.Earlier, c.Changed = before.changed(found.nodes)
	}
	began := time.Now()
	made, err := w.make(ctx, job)
	if err != nil {
		return state, err
	}
	if temporary != "" {
		if err := os.RemoveAll(temporary); err != nil {
			return state, err
		}
	}
	state, err = w.place(ctx, st, below, layers.Meta{
		Made: &layers.Made{Time: w.stepTime(spec.Epoch)}, Entries: made.Entries, Bytes: made.Bytes + found.linkedBytes(made.took),
	})
	if err == nil && found != nil && found.changed(spec.From.Tree.Dir, made.took) {
		w.mu.Lock()
		w.unsure[top(state)] = true
		w.mu.Unlock()
		w.note("the build context changed while it was copied: the step is not kept in the cache")
		return state, nil
	}
	if err == nil && before != nil {
		before.remember(top(state), found.nodes, began)
	}
	return state, err
}

func epochOf(e build.Epoch) *time.Time {
	if e.Epoch.IsZero() {
		return nil
	}
	return &e.Epoch
}

// readyRoot gives the new layer's / the mode of the state's.
func (w *worker) readyRoot(st *staged, below build.State, link bool) error {
	if link {
		below = build.State{}
	}
	mode, err := w.rootMode(below)
	if err != nil {
		return err
	}
	if err := unix.Chmod(filepath.Join(st.dir, "fs"), mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// relinked is what the layer of an earlier COPY was good for.
type relinked struct {
	Linked int   `json:"linked"` // files that are its own
	Copied names `json:"copied"` // those that were copied, and what else is no directory
}

// madeLayer is what a stage tells of the layer that it made.
type madeLayer struct {
	layers.Meta
	took *relinked // nil: there was no earlier one
}

// make has a stage make a layer.
func (w *worker) make(ctx context.Context, job *buildJob) (made madeLayer, err error) {
	job.Now = w.now()
	if job.Epoch != nil {
		job.Now = *job.Epoch
	}
	err = w.e.stage(ctx, request{Build: job}, func(ev event) {
		switch {
		case ev.Note != "":
			w.note(ev.Note)
		case ev.Made != nil:
			made = madeLayer{*ev.Made, ev.Relinked}
		}
	})
	return made, err
}

// changed tells whether something isn't what it was when it was read for its
// digest: what was copied may be another content, mode or target of a link. A
// file that was linked has the content of its digest, whatever it is by now.
func (s *selected) changed(dir string, took *relinked) bool {
	if dir == "" {
		return false
	}
	look := s.nodes
	if took != nil {
		if some, _ := s.split(took); len(look)-len(some) == took.Linked {
			look = some
		}
	}
	for _, n := range look {
		var st unix.Stat_t
		err := statBelow(dir, n.name, &st)
		// A directory's times are of names that come, which aren't copied, or go.
		if err != nil || st.Mode != n.stat.Mode || !n.is(unix.S_IFDIR) && memoryOf(&st) != memoryOf(&n.stat) {
			return true
		}
	}
	return false
}

// split tells those that were copied, or are no files, from those that were
// linked. If that isn't how many were, something became another kind of file
// meanwhile.
func (s *selected) split(took *relinked) (copied, linked []*node) {
	slices.Sort(took.Copied)
	for _, n := range s.nodes {
		if _, found := slices.BinarySearch(took.Copied, n.name); found || !n.is(unix.S_IFREG) {
			copied = append(copied, n)
		} else {
			linked = append(linked, n)
		}
	}
	return copied, linked
}

// linkedBytes are the contents of the files that were linked, if it is known which
// were.
func (s *selected) linkedBytes(took *relinked) (sum int64) {
	if s == nil || took == nil {
		return 0
	}
	_, linked := s.split(took)
	if len(linked) != took.Linked {
		return 0
	}
	for _, n := range linked {
		sum += n.stat.Size
	}
	return sum
}

// writeFiles makes a directory of files that are given; those without a time
// are of now.
func writeFiles(dir string, files []build.File, now time.Time) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(dir, filepath.Base(f.Name))
		if err := writeGiven(name, f); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		at := f.Time
		if at.IsZero() {
			at = now
		}
		if err := os.Chtimes(name, at, at); err != nil {
			return err
		}
	}
	return nil
}

func writeGiven(name string, f build.File) (err error) {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Chmod(f.Mode.Perm()); err != nil {
		return err
	}
	if f.Path == "" {
		_, err = out.Write(f.Data)
		return err
	}
	in, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(out, in)
	return err
}

// MakeDir makes a directory.
func (w *worker) MakeDir(ctx context.Context, below build.State, spec build.DirSpec) (state build.State, err error) {
	if below, err = w.local(ctx, below); err != nil {
		return state, err
	}
	st, err := w.e.stageStep()
	if err != nil {
		return state, err
	}
	defer st.close()
	if err := w.readyRoot(st, below, false); err != nil {
		return state, err
	}
	job := &buildJob{
		Do: jobMkdir, Staging: st.dir, Layers: w.lowers(below), Epoch: epochOf(spec.Epoch),
		Paths: []string{spec.Path}, Owner: spec.Owner,
	}
	meta, err := w.make(ctx, job)
	if err != nil || meta.Entries == 0 {
		return below, err
	}
	return w.place(ctx, st, below, layers.Meta{
		Made: &layers.Made{Time: w.stepTime(spec.Epoch)}, Entries: meta.Entries, Bytes: meta.Bytes,
	})
}
