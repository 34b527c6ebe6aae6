package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
	"nook/internal/raw"
	"nook/rootfs"
)

// The ladder of a container's root file system (docs/design/nested.md): which
// step a data root allows is seen by its kind (rootfsKind), or, where that
// tells nothing, by the mount that is refused.

// refusesOverlay tells whether the host, and not the container, is the reason.
func refusesOverlay(err error) bool {
	var step *raw.Error
	return errors.As(err, &step) && step.Step == rootfs.StepOverlay
}

// stepDown takes the next step for a container whose overlay was refused.
func (e *Engine) stepDown(ctx context.Context, h held, why error) error {
	cfg := h.cfg
	if cfg.LayerSize > 0 {
		// Not wrapped: to the caller it would be one more refusal to step down from.
		return hint.Errorf("leave out --storage-opt; see nook info for what this host allows",
			"limit the writable layer: an overlay with a tmpfs is refused here: %v", why)
	}
	// EINVAL is what overlayfs says to an upper directory that it can't use.
	if cfg.Remove && cfg.Rootfs == string(rootfs.Overlay) && errors.Is(why, unix.EINVAL) {
		cfg.Rootfs = string(rootfs.OverlayTmpfs)
		return h.Rewrite(cfg)
	}
	if err := e.copyRuns(); err != nil {
		return err
	}
	e.note("overlay is refused here (%v): copying the image's files for this container", why)
	if err := e.stageFlatten(ctx, h.Container, cfg); err != nil {
		return err
	}
	cfg.Rootfs = string(rootfs.Copy)
	return h.Rewrite(cfg)
}

// copyRuns tells why a copy in the data root could not be executed: an overlay
// is its own mount, and a copy is on the host's.
func (e *Engine) copyRuns() error {
	var st unix.Statfs_t
	if err := unix.Statfs(e.root, &st); err == nil && st.Flags&unix.ST_NOEXEC != 0 {
		return hint.Errorf("choose another place with --root or NOOK_ROOT",
			"overlay is refused here, and nothing could be executed in a copy: %s is mounted noexec", e.root)
	}
	return nil
}

// stageFlatten fills a container's rootfs directory from its layers.
func (e *Engine) stageFlatten(ctx context.Context, ct containers.Container, cfg *containers.Config) error {
	err := e.stage(ctx, request{Flatten: &flattenJob{Container: ct.ID, Layers: cfg.Layers}}, nil)
	if err != nil {
		return fmt.Errorf("copy the image's files: %w", err)
	}
	return nil
}

func (e *Engine) overlayFinding(ctx context.Context) Finding {
	err := e.tryOverlay(ctx, rootfs.Overlay)
	if err == nil {
		return Finding{Use: string(rootfs.Overlay), Why: "kernel overlayfs in a user namespace"}
	}
	why := err.Error()
	if errors.Is(err, errNoTry) {
		return Finding{Use: "none", Why: why, Cost: "no container can be made in this data root"}
	}
	if e.rootfsKind(true) == rootfs.OverlayTmpfs {
		why = "the data root lies on overlayfs, which can't carry the writable layer: " + why
	}
	if err := e.tryOverlay(ctx, rootfs.OverlayTmpfs); err == nil {
		return Finding{
			Use: string(rootfs.OverlayTmpfs) + " for run --rm, else " + string(rootfs.Copy), Why: why,
			Cost: "with --rm what a container writes takes memory; without, a copy of the image for each container",
		}
	}
	return Finding{Use: string(rootfs.Copy), Why: why, Cost: "a copy of the image for each container"}
}

// errNoTry says that the data root can't be written to.
var errNoTry = errors.New("the data root takes nothing")

// tryOverlay mounts an overlay as a container would, in the data root.
func (e *Engine) tryOverlay(ctx context.Context, kind rootfs.Kind) error {
	dir, err := os.MkdirTemp(e.root, ".try-")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoTry, err)
	}
	defer os.RemoveAll(dir)
	var f fds
	defer f.close()
	at := func(name string) rootfs.Dir {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			f.fail(err)
		}
		return f.rootDir(dir, name)
	}
	// The mount point is apart: a tmpfs on it must not hide the layer.
	r := &rootfs.Root{Kind: kind, Dir: at("mnt").Path, Lowers: []rootfs.Dir{at("lower")}, Upper: at("upper"), Work: at("work"), UpperMode: 0o755}
	if f.err != nil {
		return f.err
	}
	return e.try(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS, r.Mount)
}
