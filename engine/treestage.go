package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images/layers"
	"nook/internal/safepath"
	"nook/rootfs"
)

// The jobs of filesJob.
const (
	jobChanges = "changes"
	jobPack    = "pack"
	jobArchive = "archive"
	jobCopyIn  = "copy in"
	jobCopyOut = "copy out"
)

// filesJob is work on a container's files, in a stage. Its first descriptor is
// the pipe, if Data, the next the container's root, if Root.
type filesJob struct {
	Do        string   `json:"do"`
	Container string   `json:"container"`
	Kind      string   `json:"kind"` // rootfs.Kind
	Layers    []string `json:"layers"`
	Data      bool     `json:"data,omitempty"`
	Root      bool     `json:"root,omitempty"`
	Skeleton  string   `json:"skeleton,omitempty"`
	// Of a copy from or to a container that doesn't run: what is mounted.
	ReadOnly bool               `json:"readOnly,omitempty"`
	Mounts   []containers.Mount `json:"mounts,omitempty"`
	// Of a copy:
	Path   string      `json:"path,omitempty"`
	Follow bool        `json:"follow,omitempty"`
	Owners bool        `json:"owners,omitempty"`
	Source *copySource `json:"source,omitempty"`
}

// files does a filesJob.
func (s *stageRun) files(ctx context.Context, store *layers.Store) error {
	job := s.req.Files
	next := stageFD + 1
	var data *os.File
	if job.Data {
		unix.CloseOnExec(next)
		// Non-blocking, so that Close ends a read that waits.
		_ = unix.SetNonblock(next, true)
		data = os.NewFile(uintptr(next), "pipe")
		stop := context.AfterFunc(ctx, func() { _ = data.Close() })
		defer stop()
		next++
	}
	switch job.Do {
	case jobChanges:
		list, err := s.view(job, store, next).Changes(ctx)
		for len(list) > 0 && err == nil {
			n := min(len(list), 1000)
			s.tell(event{Changes: list[:n]})
			list = list[n:]
		}
		return err
	case jobPack:
		_, err := s.view(job, store, next).Pack(ctx, data)
		return err
	case jobArchive:
		return s.view(job, store, next).Archive(ctx, data)
	}
	root, err := s.root(job, next)
	if err != nil {
		return err
	}
	defer root.Close()
	if job.Do == jobCopyOut {
		return s.copyOut(ctx, root, job, data)
	}
	if err := s.copyIn(ctx, root, job, data); err != nil {
		return err
	}
	// Who writes to the pipe may not be done with the padding of its archive.
	_, _ = io.Copy(io.Discard, data)
	return nil
}

// view is the container's files as layers sees them. root is the descriptor of
// its root, if the job has one.
func (s *stageRun) view(job *filesJob, store *layers.Store, root int) layers.View {
	v := layers.View{IDs: s.req.IDs, Skip: ownPath, Note: func(text string) { s.tell(event{Note: text}) }}
	for _, key := range job.Layers {
		v.Lowers = append(v.Lowers, store.Dir(key))
	}
	dir := filepath.Join(containersDir(s.req.Root), job.Container)
	switch {
	case job.Root:
		v.Upper, v.Full, v.OneMount = "/proc/self/fd/"+strconv.Itoa(root), true, true
	case rootfs.Kind(job.Kind) == rootfs.Copy:
		v.Upper, v.Full = filepath.Join(dir, "rootfs"), true
	default:
		v.Upper = filepath.Join(dir, "upper")
	}
	if job.Skeleton != "" {
		v.Lowers = append(v.Lowers, job.Skeleton)
	}
	return v
}

// root opens the container's root: the one that was given, or the one that the
// stage's first steps mounted and made the working directory.
func (s *stageRun) root(job *filesJob, fd int) (*safepath.Root, error) {
	if job.Root {
		unix.CloseOnExec(fd)
		return safepath.RootAt(os.NewFile(uintptr(fd), "/")), nil
	}
	dir, err := os.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	root := safepath.RootAt(dir)
	for _, m := range job.Mounts {
		if m.Type == "tmpfs" || m.Memory {
			continue // a tmpfs is empty at each start
		}
		if m.Type == "volume" && m.Source == "" {
			m.Source = containers.Open(containersDir(s.req.Root)).Volumes().Data(m.Name)
		}
		if err := mountBind(root, m); err != nil {
			s.tell(event{Note: fmt.Sprintf("the mount on %s is left out: %v", m.Target, err)})
		}
	}
	if job.ReadOnly {
		if err := remountReadOnly(dir); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// makeDirs makes a directory of the container and those above it.
func makeDirs(root *safepath.Root, unsafePath string) error {
	for i := 1; i <= len(unsafePath); i++ {
		if i < len(unsafePath) && unsafePath[i] != '/' {
			continue
		}
		parent, base, err := root.OpenParent(unsafePath[:i])
		if err != nil {
			return err
		}
		err = unix.Mkdirat(int(parent.Fd()), base, 0o755)
		_ = parent.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s: %w", unsafePath[:i], err)
		}
	}
	return nil
}

// mountBind mounts what a container that ran would have there. The mount point
// of a file that isn't there yet is made at its first start.
func mountBind(root *safepath.Root, m containers.Mount) error {
	source, err := os.OpenFile(m.Source, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if m.Subpath != "" {
		in := safepath.RootAt(source)
		if source, err = in.Open(m.Subpath, unix.O_PATH, 0); err != nil {
			_ = in.Close()
			return err
		}
		_ = in.Close()
	}
	defer source.Close()
	target, err := root.Open(m.Target, unix.O_PATH, 0)
	if errors.Is(err, fs.ErrNotExist) && (m.Dir || m.Type == "volume" && m.Subpath == "") {
		// As its first start would make it.
		if err := makeDirs(root, m.Target); err != nil {
			return err
		}
		target, err = root.Open(m.Target, unix.O_PATH, 0)
	}
	if err != nil {
		return err
	}
	defer target.Close()
	// The magic links stand for the very files, whatever their paths are now.
	if err := unix.Mount(fdPath(source), fdPath(target), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if !m.ReadOnly {
		return nil
	}
	mounted, err := root.Open(m.Target, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer mounted.Close()
	return remountReadOnly(mounted)
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// remountReadOnly makes the mount that f is the root of read-only; the flags
// that it has stay, as a user namespace must not take them.
func remountReadOnly(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	const keep = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	flags := uintptr(st.Flags)&keep | unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY
	if err := unix.Mount("", fdPath(f), "", flags, ""); err != nil {
		return fmt.Errorf("remount read-only: %w", err)
	}
	return nil
}
