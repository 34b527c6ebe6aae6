package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
	"nook/rootfs"
)

// mounts are those of a new container: what the flags say, then --volumes-from,
// then the VOLUMEs of the image that neither of them replaces.
func (e *Engine) mounts(o RunOptions, imageVolumes map[string]struct{}) ([]containers.Mount, error) {
	flags, err := mountFlags(o)
	if err != nil {
		return nil, err
	}
	var out []containers.Mount
	taken := map[string]bool{}
	add := func(m containers.Mount) {
		if !taken[m.Target] {
			taken[m.Target] = true
			out = append(out, m)
		}
	}
	for _, m := range flags {
		if m.Type == "bind" {
			if err := m.resolve(); err != nil {
				return nil, err
			}
		}
		if m.Subpath != "" && !rootfs.Descriptors() {
			return nil, hint.Errorf("mount all of the volume", "%s: without openat2(2) and open_tree(2), which are refused here, a subpath isn't safe", m.typed)
		}
		if m.Anonymous {
			m.Name = anonymousName()
		}
		add(m.Mount)
	}
	// Of several containers with a mount at one place the last one counts.
	for _, from := range slices.Backward(o.VolumesFrom) {
		list, err := e.mountsFrom(from)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			add(m)
		}
	}
	for target := range imageVolumes {
		if !path.IsAbs(target) || path.Clean(target) == "/" || strings.ContainsRune(target, 0) {
			return nil, fmt.Errorf("the image's VOLUME %.100q is no directory of a container", target)
		}
		if target = path.Clean(target); !taken[target] {
			add(containers.Mount{Type: "volume", Name: anonymousName(), Anonymous: true, Target: target})
		}
	}
	return out, nil
}

// mountsFrom reads one --volumes-from.
func (e *Engine) mountsFrom(from string) ([]containers.Mount, error) {
	name, mode, has := strings.Cut(from, ":")
	if name == "" || has && mode != "ro" && mode != "rw" {
		return nil, hint.Errorf("it takes CONTAINER[:ro|rw]", "--volumes-from %q: invalid", from)
	}
	ct, err := e.containers.Find(name)
	if err != nil {
		return nil, fmt.Errorf("--volumes-from: %w", err)
	}
	cfg, err := ct.Config()
	if err != nil {
		return nil, fmt.Errorf("--volumes-from: %w", err)
	}
	if err := e.checkIDs(cfg); err != nil {
		return nil, fmt.Errorf("--volumes-from: %w", err)
	}
	var out []containers.Mount
	for _, m := range cfg.Mounts {
		if m.Type == "tmpfs" {
			continue // it is the container's own memory
		}
		m.ReadOnly = m.ReadOnly || mode == "ro"
		out = append(out, m)
	}
	return out, nil
}

// sourceTime is how long the file system of a source may take to answer. One of
// a server that is gone never does, and can't be asked to stop.
const sourceTime = 5 * time.Second

// errSilent says that a file system doesn't answer.
var errSilent = errors.New("its file system doesn't answer")

// patiently does what may hang, and gives up on it.
func patiently(do func() error) error { return patientlyFor(sourceTime, do) }

func patientlyFor(limit time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		return aboutServer(err)
	case <-late.C:
		return hint.Wrap(errSilent, "unmount it, by umount -l or fusermount -uz, or bring its server back")
	}
}

// aboutServer advises on the errors of a file system whose server is gone, or
// came back without what was mounted.
func aboutServer(err error) error {
	switch {
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.ETIMEDOUT):
		return hint.Wrap(err, "unmount it, by umount -l or fusermount -uz, and mount it again")
	case errors.Is(err, unix.EIO):
		return hint.Wrap(err, "its disk or its server has trouble: dmesg may tell which")
	}
	return err
}

// resolve finds the source of a bind, and writes down its path without links:
// where they lead later counts no more.
func (m *mountFlag) resolve() error {
	var source string
	var dir bool
	err := patiently(func() (err error) {
		source, dir, err = findSource(m.Source, m.make)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hint.Errorf("make it first, or use -v, which makes a directory", "%s: bind source path does not exist: %s", m.typed, m.Source)
	case err != nil:
		return fmt.Errorf("%s: %w", m.typed, err)
	}
	m.Mount.Source, m.Dir = source, dir
	if m.Slave {
		return followsHost(m.typed, source)
	}
	return nil
}

func findSource(unsafePath string, create bool) (source string, dir bool, err error) {
	source, err = filepath.EvalSymlinks(unsafePath)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(unsafePath, 0o755); err != nil {
			return "", false, fmt.Errorf("make the source: %w", err)
		}
		source, err = filepath.EvalSymlinks(unsafePath)
	}
	if err != nil {
		return "", false, err
	}
	st, err := os.Stat(source)
	if err != nil {
		return "", false, err
	}
	if strings.HasSuffix(unsafePath, "/") && !st.IsDir() {
		return "", false, fmt.Errorf("%s: not a directory", unsafePath)
	}
	return source, st.IsDir(), nil
}

// followsHost refuses a slave of a mount that tells nobody what is mounted
// below it.
func followsHost(typed, source string) error {
	list, err := mountinfo.GetMounts(mountinfo.ParentsFilter(source))
	if err != nil {
		return fmt.Errorf("%s: read the mounts: %w", typed, err)
	}
	var at *mountinfo.Info
	for _, m := range list {
		if at == nil || len(m.Mountpoint) >= len(at.Mountpoint) {
			at = m
		}
	}
	if at == nil || !strings.Contains(at.Optional, "shared:") && !strings.Contains(at.Optional, "master:") {
		where := "/"
		if at != nil {
			where = at.Mountpoint
		}
		return hint.Errorf("leave rslave out, or have root make it shared: mount --make-shared "+where,
			"%s: path %s is mounted on %s but it is not a shared or slave mount", typed, source, where)
	}
	return nil
}

// addMounts adds a container's mounts to its root. What they need of the host
// is looked at first, so that the error is about it and not about a step.
func (e *Engine) addMounts(r *rootfs.Root, ct containers.Container, list []containers.Mount) error {
	for _, m := range list {
		if m.Type == "tmpfs" || m.Memory {
			flags, data, err := tmpfsOptions(m.Options)
			if err == nil && m.Memory {
				err = e.soleUser(ct, m)
			}
			if err != nil {
				return err
			}
			r.Tmpfs = append(r.Tmpfs, rootfs.Tmpfs{Target: m.Target, Flags: flags, Data: data})
			continue
		}
		b := rootfs.Bind{
			Source: m.Source, Subpath: m.Subpath, Target: m.Target, Dir: m.Dir || m.Type == "volume",
			ReadOnly: m.ReadOnly, WritableBelow: m.WritableBelow, NoRecurse: m.NoRecurse, Slave: m.Slave,
		}
		if m.Type == "volume" && m.Source == "" {
			b.Source = e.volumes.Data(m.Name)
		}
		if err := e.checkSource(m, b.Source); err != nil {
			return err
		}
		r.Binds = append(r.Binds, b)
	}
	return nil
}

// soleUser refuses a volume in memory that another container has mounted: it is
// that one's, and what is mounted in its namespace can't be mounted in ours.
func (e *Engine) soleUser(ct containers.Container, m containers.Mount) error {
	users, err := e.containers.VolumeUsers()
	if err != nil {
		return err
	}
	for _, id := range users[m.Name] {
		if id == ct.ID {
			continue
		}
		lock, err := e.containers.At(id).TryLock()
		lock.Release()
		if errors.Is(err, containers.ErrBusy) {
			return hint.Errorf("stop that one first, or use a volume on disk",
				"mount on %s: volume %s is a tmpfs, which is not shared, and container %.12s has it", m.Target, m.Name, id)
		}
	}
	return nil
}

// checkSource tells of a source that went since the container was made.
func (e *Engine) checkSource(m containers.Mount, source string) error {
	if m.Type == "volume" && m.Source == "" {
		// In the data root, which answers. Its files may be closed to us.
		if exists(source) {
			return nil
		}
		return hint.Errorf("nook volume create "+m.Name, "mount on %s: get %s: %w", m.Target, m.Name, errNoVolume)
	}
	var st fs.FileInfo
	err := patiently(func() (err error) {
		st, err = os.Lstat(source)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hint.Errorf("put it back, or make the container anew", "mount on %s: bind source path does not exist: %s", m.Target, source)
	case err != nil:
		return fmt.Errorf("mount on %s: %w", m.Target, err)
	case st.Mode()&fs.ModeSymlink != 0:
		return hint.Errorf("make the container anew, if it is to follow the link", "mount on %s: %s has become a symbolic link", m.Target, source)
	case m.Type == "bind" && st.IsDir() != m.Dir:
		return hint.Errorf("make the container anew", "mount on %s: %s was a directory and is none, or the other way round", m.Target, source)
	}
	return nil
}
