package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/internal/safepath"
	"nook/namespaces"
	"nook/namespaces/confine"
)

// fillJob is what a stage does about the volumes of a container before it
// starts: the first fill, and the change of owners that :U asks for.
type fillJob struct {
	// Root: the stage's first steps mounted the container's root and entered it.
	Root    bool       `json:"root,omitempty"`
	User    string     `json:"user,omitempty"`
	Volumes []fillItem `json:"volumes,omitempty"`
	Chown   []owned    `json:"chown,omitempty"`
}

// owned is a directory or file that :U gives to the container's user.
type owned struct {
	Path    string `json:"path"`
	Subpath string `json:"subpath,omitempty"` // resolved in Path, as its mount is
}

// fillItem is a volume and the directory of the image that it covers; "": one
// whose fill was killed is only finished.
type fillItem struct {
	Name string `json:"name"`
	// Volatile: it dies with its container, and no power cut spares that.
	Volatile bool   `json:"volatile,omitempty"`
	Target   string `json:"target,omitempty"`
}

// fillVolumes gives volumes that have no files those of the image, as docker
// does at a container's creation, and has files given to the container's user.
func (e *Engine) fillVolumes(ctx context.Context, ct containers.Container, cfg *containers.Config) error {
	job := &fillJob{}
	for _, m := range cfg.Mounts {
		plain := m.Type == "volume" && m.Source == "" && !m.Memory
		switch {
		case !plain:
		case m.Subpath == "" && !m.NoCopy && e.wantsFill(cfg, m):
			job.Volumes, job.Root = append(job.Volumes, fillItem{m.Name, m.Anonymous && cfg.Remove, m.Target}), true
		case e.volumes.Pending(m.Name):
			job.Volumes = append(job.Volumes, fillItem{Name: m.Name})
		}
	}
	err := e.fill(ctx, ct, cfg, job)
	for refusesOverlay(err) {
		if err = e.stepDown(ctx, held{Container: ct, cfg: cfg}, err); err == nil {
			err = e.fill(ctx, ct, cfg, job)
		}
	}
	return e.noRoom(err)
}

// finishFills does what comes before each start that a person asks for: fills
// that were killed are ended, and :U gives files to the container's user.
func (e *Engine) finishFills(ctx context.Context, cfg *containers.Config) error {
	job := &fillJob{User: cfg.User}
	for _, m := range cfg.Mounts {
		if m.Type == "volume" && e.volumes.Pending(m.Name) {
			job.Volumes = append(job.Volumes, fillItem{Name: m.Name})
		}
		if !m.Chown || m.Memory || e.ids.Mode == namespaces.Single {
			continue
		}
		source := m.Source
		if m.Type == "volume" && source == "" {
			source = e.volumes.Data(m.Name)
		}
		if err := e.checkSource(m, source); err != nil {
			return err
		}
		job.Chown, job.Root = append(job.Chown, owned{source, m.Subpath}), true
	}
	return e.fill(ctx, e.containers.At(cfg.ID), cfg, job)
}

func (e *Engine) fill(ctx context.Context, ct containers.Container, cfg *containers.Config, job *fillJob) error {
	if len(job.Volumes)+len(job.Chown) == 0 {
		return nil
	}
	var f fds
	defer f.close()
	o := outfitted{}
	if job.Root {
		bare := *cfg
		bare.Mounts = nil
		r, err := e.rootFor(func() int { return f.dir("/") }, ct, &bare)
		if err == nil {
			err = f.err
		}
		if err != nil {
			return err
		}
		r.Volatile = false // the mark of such a mount would outlive the stage
		o.steps = r.Mount
	}
	return e.stageWith(ctx, request{Fill: job}, o, func(ev event) {
		if ev.Note != "" {
			e.note("%s", ev.Note)
		}
	})
}

// wantsFill tells whether a volume has no files and the image may have some for
// it. What it can't know from outside of the user namespace it takes for yes.
func (e *Engine) wantsFill(cfg *containers.Config, m containers.Mount) bool {
	if empty, err := e.volumes.Empty(m.Name); err != nil || !empty {
		return false
	}
	for _, key := range cfg.Layers {
		if mayHave(e.layers.Dir(key), m.Target) {
			return true
		}
	}
	return false
}

// mayHave tells whether a layer has a path, or a symlink on the way to it.
func mayHave(layer, target string) bool {
	for i := 1; i <= len(target); i++ {
		if i < len(target) && target[i] != '/' {
			continue
		}
		st, err := os.Lstat(layer + target[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			return false
		case err != nil, st.Mode()&fs.ModeSymlink != 0:
			return true
		}
	}
	return true
}

// fill is the stage's part.
func (s *stageRun) fill(ctx context.Context) error {
	job := s.req.Fill
	store := containers.Open(containersDir(s.req.Root)).Volumes()
	var root *safepath.Root
	if job.Root {
		dir, err := os.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return fmt.Errorf("open the container's root: %w", err)
		}
		defer dir.Close()
		root = safepath.RootAt(dir)
	}
	for _, v := range job.Volumes {
		if v.Target == "" {
			if err := store.Finish(ctx, v.Name); err != nil {
				return err
			}
			continue
		}
		from, err := root.Open(v.Target, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			continue // it has nothing there, or no directory
		}
		err = store.Fill(ctx, v.Name, from, atomicfile.Durability(!v.Volatile), func(text string) { s.tell(event{Note: text}) })
		_ = from.Close()
		if err != nil {
			return err
		}
	}
	if len(job.Chown) == 0 {
		return nil
	}
	user, err := confine.LookupUser(root.File(), job.User, func(root *os.File, unsafePath string) (*os.File, error) {
		return safepath.RootAt(root).Open(unsafePath, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return err
	}
	for _, o := range job.Chown {
		if err := o.chown(ctx, int(user.UID), int(user.GID)); err != nil {
			err = fmt.Errorf("give %s to the container's user: %w", o, err)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
				err = hint.Wrap(err, "files of ids that the container doesn't have stay with their owners: leave :U out")
			}
			return err
		}
	}
	return nil
}

func (o owned) String() string {
	if o.Subpath != "" {
		return "the subpath " + o.Subpath + " of " + o.Path
	}
	return o.Path
}

// open opens what a bind with these names mounts (rootfs/bind.go).
func (o owned) open() (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, o.Path, &how)
	if err != nil {
		return nil, fmt.Errorf("openat2: %w", err)
	}
	f := os.NewFile(uintptr(fd), o.Path)
	if o.Subpath == "" {
		return f, nil
	}
	defer f.Close()
	return safepath.RootAt(f).Open(o.Subpath, unix.O_PATH, 0)
}

// chown gives a file, or a directory and what is below it on the same file
// system, to a user. No link is followed, whatever changes meanwhile.
func (o owned) chown(ctx context.Context, uid, gid int) error {
	f, err := o.open()
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	root, err := os.OpenRoot(fdPath(f))
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() && !sameDevice(root, name, st.Dev) {
			return fs.SkipDir
		}
		err = root.Lchown(name, uid, gid)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func sameDevice(root *os.Root, name string, dev uint64) bool {
	info, err := root.Lstat(name)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Dev == dev
}
