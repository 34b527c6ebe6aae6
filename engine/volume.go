package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"nook/containers"
	"nook/containers/events"
	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

// errNoVolume says that no volume has a name.
var errNoVolume = volumes.ErrNotFound

func anonymousName() string { return volumes.NewName() }

// VolumeOptions describe a new volume.
type VolumeOptions struct {
	Name   string // "": one is made up
	Driver string // "" or local
	Labels map[string]string
	// Options are docker's of the local driver: type=tmpfs with o=size=..., or
	// type=none with o=bind and device=DIRECTORY.
	Options map[string]string
}

// CreateVolume makes a volume. One of the name that is there is left as it is,
// as docker does; with other options it is volumes.ErrExists.
func (e *Engine) CreateVolume(ctx context.Context, o VolumeOptions) (volumes.Volume, error) {
	v := volumes.Volume{Name: o.Name, Labels: o.Labels, Options: o.Options, IDs: string(e.ids.Mode)}
	if v.Name == "" {
		v.Name, v.Anonymous = volumes.NewName(), true
	}
	if err := localDriver(o.Driver); err != nil {
		return v, err
	}
	if err := checkVolumeOptions(v); err != nil {
		return v, err
	}
	done, err := e.volumes.Use(ctx)
	if err != nil {
		return v, e.noRoom(err)
	}
	defer done()
	v, made, err := e.volumes.Create(v, atomicfile.Durable)
	if made {
		e.volumeEvent("create", v.Name)
	}
	return v, e.noRoom(err)
}

// volumeEvent tells what happened to a volume, before its lock is let go: whoever
// takes the name next tells of that one later.
func (e *Engine) volumeEvent(action, name string) {
	_ = events.Append(e.root, events.Volume(action, name))
}

// checkVolumeOptions refuses what the driver doesn't know, and what a user
// namespace can't mount.
func checkVolumeOptions(v volumes.Volume) error {
	fail := func(advice, format string, args ...any) error {
		return hint.Errorf(advice, "create volume %s: "+format, append([]any{v.Name}, args...)...)
	}
	for _, key := range slices.Sorted(maps.Keys(v.Options)) {
		switch key {
		case "type", "device", "o":
		case "size":
			return fail("use type=tmpfs with o=size=N", "invalid option: size: a directory has no size without a quota, which is root's to give")
		default:
			return fail("type, device and o are the options there are", "invalid option: %q", key)
		}
	}
	if len(v.Options) == 0 {
		return nil
	}
	switch kind := v.Options["type"]; kind {
	case "":
		return fail("--opt type=none for a directory, tmpfs for memory", "missing required option: \"type\"")
	case "tmpfs":
		if _, _, err := tmpfsOptions(v.Options["o"]); err != nil {
			return fmt.Errorf("create volume %s: %w", v.Name, err)
		}
	case "none", "bind":
		if device := v.Options["device"]; !filepath.IsAbs(device) || strings.ContainsRune(device, 0) {
			return fail("--opt device=/DIRECTORY", "device %q: a bind wants an absolute path", device)
		}
		bind := false
		for o := range strings.SplitSeq(v.Options["o"], ",") {
			switch o {
			case "bind", "rbind":
				bind = true
			case "", "rw", "ro", "rprivate", "private":
			default:
				return fail("it takes bind, rbind, ro and rw", "option %q of type=%s is not known", o, kind)
			}
		}
		if !bind {
			return fail("--opt o=bind", "type=none without o=bind mounts nothing")
		}
	default:
		return fail("mount it on the host and name it with type=none, o=bind, device=DIRECTORY",
			"type %q: a user namespace can't mount it, only tmpfs and binds", kind)
	}
	return nil
}

// taken are the volumes of a container that is being made: until its record is
// written they are kept from others' removals.
type taken struct {
	engine *Engine
	held   func() // nil: the container has none
	made   []string
}

// takeVolumes finds the volumes of a new container, and makes those that aren't
// there. drop or release must follow.
func (e *Engine) takeVolumes(ctx context.Context, cfg *containers.Config, o RunOptions) (*taken, error) {
	t := &taken{engine: e}
	if !slices.ContainsFunc(cfg.Mounts, func(m containers.Mount) bool { return m.Type == "volume" }) {
		return t, nil
	}
	var err error
	if t.held, err = e.volumes.Use(ctx); err != nil {
		return t, e.noRoom(err)
	}
	flags, err := mountFlags(o)
	if err != nil {
		return t, err
	}
	for i := range cfg.Mounts {
		m := &cfg.Mounts[i]
		if m.Type != "volume" {
			continue
		}
		v := volumes.Volume{Name: m.Name, Anonymous: m.Anonymous, IDs: string(e.ids.Mode)}
		for _, f := range flags {
			if f.Target == m.Target && f.Type == "volume" {
				v.Labels, v.Options = f.labels, f.options
			}
		}
		if err := checkVolumeOptions(v); err != nil {
			return t, err
		}
		v, made, err := e.volumes.Create(v, atomicfile.Durability(!m.Anonymous || !cfg.Remove))
		if err != nil {
			return t, e.noRoom(err)
		}
		if made {
			t.made = append(t.made, v.Name)
			e.volumeEvent("create", v.Name)
		}
		if err := e.applyVolume(m, v); err != nil {
			return t, err
		}
	}
	return t, nil
}

// release lets others remove volumes again: the record is written.
func (t *taken) release() {
	if t.held != nil {
		t.held()
	}
}

// drop is release for a container that there won't be: what was made for it
// goes, unless another took it already.
func (t *taken) drop(ctx context.Context) {
	t.release()
	for _, name := range t.made {
		_ = t.engine.RemoveVolume(context.WithoutCancel(ctx), name, RemoveVolumeOptions{Force: true})
	}
}

// applyVolume adds to a mount what its volume's options say.
func (e *Engine) applyVolume(m *containers.Mount, v volumes.Volume) error {
	if v.IDs != "" && v.IDs != string(e.ids.Mode) {
		return hint.Errorf("use --ids "+v.IDs, "volume %s was made with %s ids, and these are %s", v.Name, v.IDs, e.ids.Mode)
	}
	m.Source, m.Memory = "", false
	switch v.Options["type"] {
	case "":
		return nil
	case "tmpfs":
		m.Memory, m.Options = true, strings.TrimSuffix("exec,"+v.Options["o"], ",")
		if m.ReadOnly {
			m.Options += ",ro"
		}
		return nil
	}
	for o := range strings.SplitSeq(v.Options["o"], ",") {
		m.ReadOnly = m.ReadOnly || o == "ro"
	}
	f := mountFlag{Mount: *m, typed: "volume " + v.Name}
	f.Source = v.Options["device"]
	if err := f.resolve(); err != nil {
		return err
	}
	*m = f.Mount
	return nil
}

// RemoveVolumeOptions say how a volume is removed.
type RemoveVolumeOptions struct {
	Force bool // no error when there is none of the name
}

// RemoveVolume removes a volume and its files. ErrInUse: a container has it,
// running or not.
func (e *Engine) RemoveVolume(ctx context.Context, name string, o RemoveVolumeOptions) error {
	err := e.removeVolumes(ctx, []string{name}, nil)
	if o.Force && errors.Is(err, volumes.ErrNotFound) {
		return nil
	}
	return err
}

// removeVolumes detaches volumes and removes their files. gone is told of each
// that was detached; with it those that are used, or are no more, are passed over.
func (e *Engine) removeVolumes(ctx context.Context, names []string, gone func(name string)) error {
	done, err := e.volumes.Change(ctx)
	if err != nil {
		return e.noRoom(err)
	}
	defer done()
	users, err := e.containers.VolumeUsers()
	if err != nil {
		return hint.Wrap(fmt.Errorf("find who uses volumes: %w", err), "nook system check tells which record is damaged")
	}
	var dirs []string
	for _, name := range names {
		used := users[name]
		if len(used) > 0 && gone == nil {
			return hint.Errorf("remove the container first: nook rm "+shortIDs(used)[0],
				"remove %s: %w - [%s]", name, volumes.ErrInUse, strings.Join(used, ", "))
		}
		if len(used) > 0 {
			continue
		}
		dir, err := e.volumes.Detach(name)
		if gone != nil && errors.Is(err, volumes.ErrNotFound) {
			continue
		}
		if errors.Is(err, volumes.ErrNotFound) {
			return fmt.Errorf("get %s: %w", name, errNoVolume)
		}
		if err != nil {
			return err
		}
		dirs = append(dirs, dir)
		e.volumeEvent("destroy", name)
		if gone != nil {
			gone(name)
		}
	}
	done()
	return e.removeDetached(ctx, dirs)
}

// removeDetached removes files, those of other ids in a stage.
func (e *Engine) removeDetached(ctx context.Context, dirs []string) error {
	for i, dir := range dirs {
		if e.volumes.Remove(dir) == nil {
			continue
		}
		if err := e.stage(ctx, request{Detached: dirs[i:]}, nil); err != nil {
			return fmt.Errorf("remove the files of a volume: %w", err)
		}
		return nil
	}
	return nil
}

func shortIDs(ids []string) []string {
	const short = 12
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id[:min(short, len(id))]
	}
	return out
}
