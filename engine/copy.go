package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/safepath"
	"nook/internal/treetar"
)

// CopyToOptions say how CopyTo unpacks.
type CopyToOptions struct {
	// Owners keeps the numbers of users and groups in the stream; else all
	// files are root's.
	Owners bool
}

// CopyTo unpacks a tar stream, not packed, in a directory of a container, as
// PUT .../archive of docker's API does. The container may run or not. The
// stream is read to its end. A directory and a file don't replace one another.
func (e *Engine) CopyTo(ctx context.Context, nameOrID, dstPath string, tarStream io.Reader, o CopyToOptions) error {
	_, err := e.copyTo(ctx, nameOrID, &filesJob{Path: insidePath(dstPath), Owners: o.Owners}, func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, tarStream)
		return err
	})
	return err
}

// copyTo feeds a stage that unpacks. It returns the bytes of files.
func (e *Engine) copyTo(ctx context.Context, nameOrID string, job *filesJob, feed func(context.Context, io.Writer) error) (int64, error) {
	t, err := e.tree(ctx, nameOrID)
	if err != nil {
		return 0, err
	}
	defer t.close()
	job.Do, job.Container, job.Kind, job.Layers = jobCopyIn, t.ID, t.cfg.Rootfs, t.cfg.Layers
	var f fds
	defer f.close()
	r, w := f.pipe()
	if f.err != nil {
		return 0, f.err
	}
	widen(w)
	pipe := f.file(w, "pipe")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fed := make(chan error, 1)
	go func() {
		err := feed(ctx, pipe)
		if err != nil && !errors.Is(err, unix.EPIPE) {
			// The stage must not take what it got for all.
			fed <- err
			cancel()
		} else {
			fed <- nil
		}
		_ = pipe.Close()
	}()
	var n int64
	err = e.treeStage(ctx, t, job, f.take(r), true, func(ev event) { n += ev.Add })
	// One that waits for its input is not waited for: the stage has ended.
	select {
	case cause := <-fed:
		if cause != nil {
			err = cause
		}
	default:
	}
	if err != nil {
		return n, fmt.Errorf("copy to %s:%s: %w", t.cfg.Name, job.Path, err)
	}
	e.event("extract-to-dir", t.cfg)
	return n, nil
}

// CopyFrom gives what is at a path of a container as a tar stream, as GET
// .../archive of docker's API does: entries are below the path's last
// component, or below "." when the path ends in "/.". A symlink is given as
// such. The stream ends with io.EOF only if all went well; it has to be
// closed.
func (e *Engine) CopyFrom(ctx context.Context, nameOrID, srcPath string) (io.ReadCloser, PathStat, error) {
	return e.copyFrom(ctx, nameOrID, srcPath, false)
}

func (e *Engine) copyFrom(ctx context.Context, nameOrID, srcPath string, follow bool) (io.ReadCloser, PathStat, error) {
	t, err := e.tree(ctx, nameOrID)
	if err != nil {
		return nil, PathStat{}, err
	}
	job := e.treeJob(t, jobCopyOut)
	job.Path, job.Follow = insidePath(srcPath), follow
	stats := make(chan PathStat, 1)
	out, err := e.treeOutput(ctx, t, job, true, func(ev event) {
		if ev.Stat != nil {
			stats <- *ev.Stat
		}
	})
	if err != nil {
		return nil, PathStat{}, err
	}
	select {
	case st := <-stats:
		e.event("archive-path", t.cfg)
		return out, st, nil
	case <-out.done:
	}
	select { // both at once
	case st := <-stats:
		e.event("archive-path", t.cfg)
		return out, st, nil
	default:
	}
	err = out.err
	_ = out.Close()
	return nil, PathStat{}, fmt.Errorf("copy from %s:%s: %w", t.cfg.Name, srcPath, err)
}

// CopyOptions say what CopyInto and CopyOutOf copy, by the rules of docker cp.
type CopyOptions struct {
	Container string // name or id
	Path      string // in the container
	Local     string // of this host
	// Follow copies what a source that is a symlink leads to.
	Follow bool
	// Archive keeps owners and, out of a container, set-id bits too. Else files
	// are root's inside and the caller's outside.
	Archive bool
}

// CopyInto copies a file or directory of this host into a container, and
// returns the bytes of files.
func (e *Engine) CopyInto(ctx context.Context, o CopyOptions) (int64, error) {
	local, err := outsidePath(o.Local)
	if err != nil {
		return 0, err
	}
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !o.Follow {
		flags |= unix.O_NOFOLLOW
	}
	f, err := os.OpenFile(local, flags, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if err := copied(info.Mode()); err != nil {
		return 0, fmt.Errorf("copy %s: %w", o.Local, err)
	}
	src := sourceOf(local, info.IsDir())
	job := &filesJob{Path: insidePath(o.Path), Owners: o.Archive, Source: &src}
	return e.copyTo(ctx, o.Container, job, func(ctx context.Context, out io.Writer) error {
		w := treetar.NewWriter(out)
		w.Note = func(text string) { e.note("%s", text) }
		if err := w.Tree(ctx, f, src.Base); err != nil {
			return err
		}
		return w.Close()
	})
}

// copied refuses what has no copy; below a directory it is left out with a note.
func copied(mode fs.FileMode) error {
	switch {
	case mode&fs.ModeDevice != 0:
		return hint.Errorf("nobody unprivileged can make one; -v binds the host's", "a device node is not copied")
	case mode&fs.ModeSocket != 0:
		return hint.Errorf("-v binds its directory", "a socket is not copied")
	}
	return nil
}

// CopyOutOf copies a file or directory of a container to this host, and
// returns the bytes of files.
func (e *Engine) CopyOutOf(ctx context.Context, o CopyOptions) (int64, error) {
	local, err := outsidePath(o.Local)
	if err != nil {
		return 0, err
	}
	in, st, err := e.copyFrom(ctx, o.Container, o.Path, o.Follow)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := copied(st.Mode); err != nil {
		return 0, fmt.Errorf("copy %s: %w", o.Path, err)
	}
	src := copySource{st.Name, st.Mode.IsDir()}
	// The host's own root: our paths are resolved as anybody's.
	root, err := safepath.OpenRoot("/")
	if err != nil {
		return 0, err
	}
	defer root.Close()
	d, err := place(root, local, &src)
	if err != nil {
		return 0, fmt.Errorf("copy to %w", err)
	}
	defer d.close()
	opt := treetar.Options{
		From: src.Base, To: d.to(src), Privileges: o.Archive,
		Note: func(text string) { e.note("%s", text) },
	}
	if o.Archive {
		opt.Owner = func(of treetar.Owned) treetar.Owned { return of }
	}
	n, err := treetar.Extract(ctx, in, d.dir, opt)
	if err == nil {
		_, err = io.Copy(io.Discard, in) // the stage's last word
	}
	if err != nil {
		return n, fmt.Errorf("copy %s:%s to %s: %w", o.Container, o.Path, o.Local, err)
	}
	return n, nil
}

// CopyOutTo writes what is at a path of a container as a tar stream.
func (e *Engine) CopyOutTo(ctx context.Context, o CopyOptions, w io.Writer) error {
	in, _, err := e.copyFrom(ctx, o.Container, o.Path, o.Follow)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(w, in); err != nil {
		return fmt.Errorf("copy from %s:%s: %w", o.Container, o.Path, err)
	}
	return nil
}
