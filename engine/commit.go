package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"nook/containers"
	"nook/images"
	"nook/internal/hint"
)

// CommitOptions say what image Commit makes of a container.
type CommitOptions struct {
	Ref     string // the image's name; "": none
	Author  string
	Message string
	Changes []string // Dockerfile instructions about the config
	// NoPause lets a container that runs go on meanwhile: what it writes may
	// be in the image in part.
	NoPause bool
}

// Commit makes an image of a container's changes and its image, and returns
// the image's id. It can be run at once.
func (e *Engine) Commit(ctx context.Context, nameOrID string, o CommitOptions) (imageID string, err error) {
	t, err := e.tree(ctx, nameOrID)
	if err != nil {
		return "", err
	}
	base, config, err := e.committed(t.cfg, o.Changes)
	if err != nil {
		t.close()
		return "", fmt.Errorf("commit %s: %w", t.cfg.Name, err)
	}
	resume := func() {}
	if t.state.Status == containers.Running && !o.NoPause {
		resume = sync.OnceFunc(e.paused(ctx, t))
	}
	defer resume()
	layer, err := e.treeOutput(ctx, t, e.treeJob(t, jobPack), false, nil)
	if err != nil {
		return "", err
	}
	defer layer.Close()
	pins := e.pins(ctx)
	defer pins.release()
	img, err := e.images.Commit(ctx, images.CommitOptions{
		Base: base, Layer: ending{layer, resume}, Config: config, Name: o.Ref,
		Author: o.Author, Message: o.Message, CreatedBy: strings.Join(t.cfg.Cmd, " "),
		Unpack: pins.unpack,
	})
	if _, gone := t.Config(); err != nil && errors.Is(gone, fs.ErrNotExist) {
		// Whatever its removal looked like from here.
		err = fmt.Errorf("commit: %w", containers.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.cfg.Name, err)
	}
	e.event("commit", t.cfg, "comment", o.Message, "imageID", img.ID, "imageRef", o.Ref)
	return img.ID, nil
}

// ending is a reader that tells its end.
type ending struct {
	io.Reader
	tell func()
}

func (e ending) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil {
		e.tell()
	}
	return n, err
}

// committed finds the image of a container, and the config that an image of
// the container gets.
func (e *Engine) committed(cfg *containers.Config, changes []string) (images.Image, images.ContainerConfig, error) {
	base, err := e.images.Resolve(cfg.ImageID)
	if errors.Is(err, images.ErrNotFound) {
		err = hint.Errorf("nook export NAME | nook import - IMAGE keeps its files",
			"its image %s was removed: %w", cfg.Image, images.ErrNotFound)
	}
	if err != nil {
		return base, images.ContainerConfig{}, err
	}
	image, err := e.images.Config(base)
	if err != nil {
		return base, images.ContainerConfig{}, err
	}
	c := containerConfig(cfg, image.Config)
	return base, c, changeConfig(&c, changes)
}

// containerConfig is what a container's record says about an image's config.
func containerConfig(cfg *containers.Config, image images.ContainerConfig) images.ContainerConfig {
	c := image
	c.Entrypoint, c.Cmd = cfg.Entrypoint, cfg.Cmd
	c.User, c.Env = cfg.User, givenEnv(cfg, image.Env)
	if cfg.WorkingDir != "/" {
		c.WorkingDir = cfg.WorkingDir
	}
	c.Labels = maps.Clone(cfg.Labels)
	c.StopSignal = first(cfg.StopSignal, image.StopSignal)
	if cfg.StopTimeout != nil {
		c.StopTimeout = cfg.StopTimeout
	}
	c.ExposedPorts = maps.Clone(image.ExposedPorts)
	for _, port := range cfg.Exposed {
		c.ExposedPorts = addPorts(c.ExposedPorts, port)
	}
	c.Volumes, c.OnBuild = maps.Clone(image.Volumes), nil
	if h := cfg.Health; h != nil {
		c.Healthcheck = &images.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return c
}

// givenEnv is a container's environment without what nook put into it: see
// environment.
func givenEnv(cfg *containers.Config, image []string) []string {
	own := []string{defaultPath, "HOSTNAME=" + cfg.Hostname}
	if cfg.TTY {
		own = append(own, "TERM=xterm")
	}
	return slices.DeleteFunc(slices.Clone(cfg.Env), func(entry string) bool {
		return slices.Contains(own, entry) && !slices.Contains(image, entry)
	})
}

// pauseTime is how long a monitor may take to stop all processes of its
// container, or to say that it can't.
const pauseTime = 10 * time.Second

// paused stops the processes of a container until the function that it gives
// is called, or this process ends. Where that can't be done the container goes
// on, and a note says so.
func (e *Engine) paused(ctx context.Context, t *tree) (resume func()) {
	asking, cancel := context.WithTimeout(ctx, pauseTime)
	defer cancel()
	conn, err := connect(asking, t.Container)
	if err == nil {
		if _, err = conn.Ask(asking, containers.Request{Verb: containers.VerbPause, Bound: true}); err == nil {
			// The monitor lets it go on when the connection ends, and then ends
			// it itself.
			return func() {
				_ = conn.CloseWrite()
				_ = conn.SetReadDeadline(time.Now().Add(pauseTime))
				if _, _, err := conn.Next(); !errors.Is(err, io.EOF) {
					e.note("%s stays paused (nook unpause %s): %v", t.cfg.Name, t.cfg.Name, err)
				}
				_ = conn.Close()
			}
		}
		_ = conn.Close()
	}
	if state, serr := t.State(); serr == nil && !state.Status.Live() {
		return func() {} // it ended meanwhile, and nothing of it goes on
	}
	e.note("%s goes on while it is committed: %v", t.cfg.Name, err)
	return func() {}
}
