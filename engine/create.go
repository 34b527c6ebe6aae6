package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images"
	"nook/images/layers"
	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/rootfs"
)

// defaultPath is what docker sets where the image sets none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// held is a container that nobody else starts or removes meanwhile.
type held struct {
	containers.Container
	cfg  *containers.Config
	lock *containers.Lock
	// leash is handed to the monitor: see RunOptions.
	leash *os.File
	// secrets are those that its start needs; nil: they are kept beside the record.
	secrets []Secret
	// early is a monitor that was forked for it already; nil: none.
	early *early
	// ahead: its first state is written by the command, which then need not wait
	// for the monitor.
	ahead bool
}

// create makes the record of a container.
func (e *Engine) create(ctx context.Context, o RunOptions) (held, error) {
	if o.Name != "" {
		if err := containers.ValidName(o.Name); err != nil {
			return held{}, err
		}
	}
	img, err := e.imageOf(ctx, o)
	if err != nil {
		return held{}, err
	}
	image, err := e.images.Config(img)
	if err != nil {
		return held{}, err
	}
	if err := images.CheckPlatform(image); err != nil {
		return held{}, err
	}
	used, err := e.useLayers(ctx) // until the record says so
	if err != nil {
		return held{}, e.noRoom(fmt.Errorf("create container: %w", err))
	}
	defer used()
	chain, err := e.chain(ctx, img, image)
	if err != nil {
		return held{}, err
	}
	cfg, err := e.config(o, img, image, chain)
	if err != nil {
		return held{}, err
	}
	vols, err := e.takeVolumes(ctx, cfg, o)
	if err != nil {
		vols.drop(ctx)
		return held{}, err
	}
	defer vols.release()
	attr := containers.Attr{Mode: rootMode(chain), Volatile: o.started}
	ct, lock, err := e.containers.Create(cfg, attr)
	for tries := 0; o.Name == "" && errors.Is(err, containers.ErrNameTaken) && tries < 100; tries++ {
		cfg.Name = containers.RandomName()
		ct, lock, err = e.containers.Create(cfg, attr)
	}
	if err != nil {
		vols.drop(ctx)
		return held{}, e.noRoom(err)
	}
	used()
	vols.release()
	h := held{Container: ct, cfg: cfg, lock: lock, leash: o.Leash, secrets: o.Secrets}
	if err := e.outfit(ctx, ct, cfg, o); err != nil {
		e.remove(h)
		vols.drop(ctx)
		return held{}, err
	}
	e.event("create", cfg)
	return h, nil
}

// noRoom hints at what to do about a data root that takes nothing more.
func (e *Engine) noRoom(err error) error {
	switch {
	case isFull(err):
		return hint.Wrap(err, "make room on the file system of "+e.root+", or choose another place with --root or NOOK_ROOT")
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return hint.Wrap(err, "choose a place that you can write to with --root or NOOK_ROOT")
	}
	return err
}

// isFull tells a disk that is full.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// outfit adds to a new container what stands beside its record.
func (e *Engine) outfit(ctx context.Context, ct containers.Container, cfg *containers.Config, o RunOptions) error {
	if cfg.Rootfs == string(rootfs.Copy) {
		if err := e.copyRuns(); err != nil {
			return err
		}
		if err := e.stageFlatten(ctx, ct, cfg); err != nil {
			return err
		}
	}
	if err := e.fillVolumes(ctx, ct, cfg); err != nil {
		return err
	}
	if err := keepSecrets(ct, cfg, o); err != nil {
		return err
	}
	if o.CIDFile == "" {
		return nil
	}
	if _, err := os.Lstat(o.CIDFile); !errors.Is(err, fs.ErrNotExist) {
		return hint.Errorf("remove it or name another", "--cidfile %s exists", o.CIDFile)
	}
	return atomicfile.Write(o.CIDFile, []byte(cfg.ID), 0o644, atomicfile.Volatile)
}

// chain finds the unpacked layers of an image, and unpacks them when a layer
// was lost, or may have been when the machine went down.
func (e *Engine) chain(ctx context.Context, img images.Image, image *images.ImageConfig) (layers.Chain, error) {
	chain, err := e.layers.Ready(image.RootFS.DiffIDs)
	if !errors.Is(err, layers.ErrNotUnpacked) {
		return chain, err
	}
	if why := err; errors.Is(why, layers.ErrSuspect) {
		defer late(silence, func() { e.note("%s is unpacked before it is used: %v", imageLabel(img), why) })()
	}
	if err := e.images.Prove(ctx, img); err != nil {
		return chain, err
	}
	list, err := e.images.Layers(img)
	if err != nil {
		return chain, err
	}
	if err := e.unpack(ctx, img, list); err != nil {
		return chain, err
	}
	if e.countLayers(list, image.RootFS.DiffIDs) == nil {
		_ = e.images.Count(ctx, img, list) // for an image that another program put here
	}
	return e.layers.Ready(image.RootFS.DiffIDs)
}

// config merges what the image says with what was asked for, as docker does.
func (e *Engine) config(o RunOptions, img images.Image, image *images.ImageConfig, chain layers.Chain) (*containers.Config, error) {
	ic := image.Config
	cfg := &containers.Config{
		ID: containers.NewID(), Name: o.Name, Created: time.Now().UTC(),
		Image: o.Image, ImageID: img.ID, Manifest: img.Manifest.Digest,
		IDs: string(e.ids.Mode), Layers: topFirst(chain.Keys[chain.Hidden:]), Rootfs: string(e.rootfsKind(o.Remove)),
		Entrypoint: ic.Entrypoint, Cmd: ic.Cmd,
		User: first(o.User, ic.User), WorkingDir: first(o.WorkDir, ic.WorkingDir, "/"),
		Hostname: o.Hostname, Labels: merged(ic.Labels, o.Labels),
		StopSignal: first(o.StopSignal, ic.StopSignal), StopTimeout: o.StopTimeout, Restart: o.Restart,
		Health: healthCheck(ic.Healthcheck, o.Health), Exposed: slices.Sorted(maps.Keys(ic.ExposedPorts)),
		ReadOnly: o.ReadOnly, Remove: o.Remove, Init: o.Init,
		OpenStdin: o.Interactive, StdinOnce: o.Interactive && !o.Detach, TTY: o.TTY, Network: first(o.Network, "none"),
	}
	if cfg.Name == "" {
		cfg.Name = containers.RandomName()
	}
	if len(o.Command) > 0 {
		cfg.Cmd = o.Command
	}
	if o.Entrypoint != nil {
		// docker: a new ENTRYPOINT drops the image's CMD too.
		cfg.Entrypoint, cfg.Cmd = nil, o.Command
		if *o.Entrypoint != "" {
			cfg.Entrypoint = []string{*o.Entrypoint}
		}
	}
	if cfg.Network != "none" && cfg.Network != "host" {
		return nil, hint.Errorf("none and host are the networks there are", "--network %q is not known", cfg.Network)
	}
	if err := e.names(cfg); err != nil {
		return nil, err
	}
	cfg.Env = environment(ic.Env, o.Env, cfg)
	if err := whole(cfg); err != nil {
		return nil, err
	}
	if err := limit(cfg, o); err != nil {
		return nil, err
	}
	var err error
	if cfg.Secrets, err = secretRecords(o); err != nil {
		return nil, err
	}
	if cfg.Mounts, err = e.mounts(o, ic.Volumes); err != nil {
		return nil, err
	}
	return cfg, freeOfMounts(cfg)
}

// names checks and completes what a person chose.
func (e *Engine) names(cfg *containers.Config) error {
	if !path.IsAbs(cfg.WorkingDir) {
		return hint.Errorf("it is a path inside of the container", "working directory %q is not absolute", cfg.WorkingDir)
	}
	cfg.WorkingDir = path.Clean(cfg.WorkingDir)
	if cfg.Hostname == "" {
		cfg.Hostname = cfg.ID[:12]
		if cfg.Network == "host" {
			var err error
			if cfg.Hostname, err = os.Hostname(); err != nil {
				return fmt.Errorf("read the host's name: %w", err)
			}
		}
	}
	return checkHostname(cfg.Hostname)
}

func checkHostname(name string) error {
	const longest = 64 // __NEW_UTS_LEN
	if len(name) > longest {
		return hint.Errorf("a hostname has at most 64 bytes", "hostname of %d bytes", len(name))
	}
	return nil
}

// whole refuses strings of an image's config that the kernel would cut short:
// what runs would be another thing than what inspect shows.
func whole(cfg *containers.Config) error {
	for _, part := range []struct {
		name string
		list []string
	}{
		{"command", cfg.Command()}, {"environment", cfg.Env}, {"user", []string{cfg.User}},
		{"working directory", []string{cfg.WorkingDir}},
	} {
		if i := slices.IndexFunc(part.list, func(s string) bool { return strings.ContainsRune(s, 0) }); i >= 0 {
			return fmt.Errorf("the container's %s: %.100q holds a NUL byte: %w", part.name, part.list[i], unix.EINVAL)
		}
	}
	return nil
}

// rootfsKind is the first step of the ladder that this data root allows; the
// last one, a copy, is also taken when the mount itself is refused.
func (e *Engine) rootfsKind(remove bool) rootfs.Kind {
	var st unix.Statfs_t
	if err := unix.Statfs(e.root, &st); err == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		if remove {
			return rootfs.OverlayTmpfs
		}
		return rootfs.Copy
	}
	return rootfs.Overlay
}

// rootMode is the mode of the image's /, which the writable layer must have.
func rootMode(c layers.Chain) uint32 {
	if c.Root == nil {
		return 0o755
	}
	return c.Root.Mode
}

// topFirst turns the order around. An image may list a layer more than once,
// as docker's old empty ones, and overlayfs takes a directory only once
// (ELOOP): whatever is in the lower one, or is hidden by it, the upper one has
// or hides as well.
func topFirst(keys []string) []string {
	out := make([]string, 0, len(keys))
	seen := make(map[string]bool, len(keys))
	for _, key := range slices.Backward(keys) {
		if !seen[key] {
			seen[key] = true
			out = append(out, key)
		}
	}
	return out
}

func first(choices ...string) string {
	for _, c := range choices {
		if c != "" {
			return c
		}
	}
	return ""
}

func merged(under, over map[string]string) map[string]string {
	if len(under)+len(over) == 0 {
		return nil
	}
	out := make(map[string]string, len(under)+len(over))
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = v
	}
	return out
}

// environment puts the image's and the user's variables over docker's own:
// PATH, HOSTNAME and, with a terminal, TERM. HOME comes when the user is known.
// A name without a value takes ours where the user gave it; an image has no
// business with our environment, and unsets the variable, as docker has it.
func environment(image, user []string, cfg *containers.Config) []string {
	var env []string
	if cfg != nil {
		env = []string{defaultPath, "HOSTNAME=" + cfg.Hostname}
		if cfg.TTY {
			env = append(env, "TERM=xterm")
		}
	}
	own := len(env)
	env = append(append(env, image...), user...)
	at := make(map[string]int, len(env)) // an image may bring very many
	out := env[:0]
	for i, e := range env {
		name, _, has := strings.Cut(e, "=")
		if !has && i >= own+len(image) {
			var value string
			if value, has = os.LookupEnv(name); has {
				e = name + "=" + value
			}
		}
		switch j, found := at[name]; {
		case has && found:
			out[j] = e
		case has:
			at[name] = len(out)
			out = append(out, e)
		case found:
			out[j] = "" // unset
			delete(at, name)
		}
	}
	return slices.DeleteFunc(out, func(e string) bool { return e == "" })
}

func put(env []string, name, entry string) []string {
	for i, e := range env {
		if n, _, _ := strings.Cut(e, "="); n == name {
			env[i] = entry
			return env
		}
	}
	return append(env, entry)
}
