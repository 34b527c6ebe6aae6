package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/safepath"
	"nook/internal/treetar"
)

// PathStat is what docker's API tells of a path of a container.
type PathStat struct {
	Name  string      `json:"name"` // "." for what is in a directory
	Size  int64       `json:"size"`
	Mode  fs.FileMode `json:"mode"`
	Mtime time.Time   `json:"mtime"`
	// LinkTarget is the text of a symlink.
	LinkTarget string `json:"linkTarget"`
}

// openSource opens what is to be copied, with O_PATH. The last component of
// the path is followed only if it is asked for, or a slash stands behind it.
func openSource(root *safepath.Root, unsafePath string, follow bool) (*os.File, PathStat, error) {
	flags := unix.O_PATH
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	f, err := root.Open(unsafePath, flags, 0)
	if err != nil {
		var p *os.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, PathStat{}, fmt.Errorf("%s: %w", unsafePath, err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, PathStat{}, fmt.Errorf("stat %s: %w", unsafePath, err)
	}
	st := PathStat{
		Name: sourceOf(unsafePath, info.IsDir()).Base, Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime(),
	}
	if st.Mode.Type() == fs.ModeSymlink {
		st.LinkTarget, _ = readlinkAt(f, "")
	}
	return f, st, nil
}

// copyOut tells what the source is and writes it to the pipe.
func (s *stageRun) copyOut(ctx context.Context, root *safepath.Root, job *filesJob, data io.Writer) error {
	f, st, err := openSource(root, job.Path, job.Follow)
	if err != nil {
		return err
	}
	defer f.Close()
	s.tell(event{Stat: &st})
	w := treetar.NewWriter(data)
	w.Note = func(text string) { s.tell(event{Note: text}) }
	if err := w.Tree(ctx, f, st.Name); err != nil {
		return err
	}
	return w.Close()
}

// copyIn unpacks the pipe.
func (s *stageRun) copyIn(ctx context.Context, root *safepath.Root, job *filesJob, data io.Reader) error {
	d, err := place(root, job.Path, job.Source)
	if err != nil {
		return err
	}
	defer d.close()
	o := treetar.Options{
		Privileges: true,
		Owner:      func(treetar.Owned) treetar.Owned { return treetar.Owned{} },
		Note:       func(text string) { s.tell(event{Note: text}) },
	}
	if job.Owners {
		o.Owner = func(of treetar.Owned) treetar.Owned { return of }
	}
	if job.Source != nil {
		o.From, o.To = job.Source.Base, d.to(*job.Source)
	} else {
		o.Follow = func(unsafePath string) (*os.File, error) {
			return root.Open(job.Path+"/"+unsafePath, unix.O_PATH|unix.O_DIRECTORY, 0)
		}
	}
	n, err := treetar.Extract(ctx, data, d.dir, o)
	s.tell(event{Add: n})
	return err
}
