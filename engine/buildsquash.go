package engine

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/images"
	"nook/images/layers"
)

// squash makes an image with one layer of all that is on top of the base: what
// a later step removed is not in it.
func (c *committing) squash(ctx context.Context, o images.AssembleOptions) (images.Image, error) {
	st, err := c.w.e.stageStep()
	if err != nil {
		return images.Image{}, err
	}
	defer st.close()
	var latest time.Time
	for _, meta := range c.metas {
		if meta.Made != nil && meta.Made.Time.After(latest) {
			latest = meta.Made.Time
		}
	}
	var below []string
	if c.spec.Base != nil {
		below = c.w.lowers(c.spec.Base.State)
	}
	job := &buildJob{Do: jobSquash, Staging: st.dir, Layers: below, Top: c.w.lowers(c.spec.State)}
	count := 0
	for i := range o.Config.History {
		if i >= len(o.Config.History)-len(c.spec.History) && !o.Config.History[i].EmptyLayer {
			o.Config.History[i].EmptyLayer = true
			count++
		}
	}
	o.Config.History = append(o.Config.History, images.History{Comment: fmt.Sprintf("merge of %d layers", count)})
	o.Layers = []images.NewLayer{{
		Time: latest,
		Open: func() (io.ReadCloser, error) { return c.w.e.stageOutput(ctx, job, nil) },
	}}
	pins := c.w.e.pins(ctx)
	defer pins.release()
	o.Packed, o.Unpack = nil, pins.unpack
	return c.into(ctx, o)
}

// squash writes what a state has that its base hasn't.
func (s *stageRun) squash(ctx context.Context, store *layers.Store, job *buildJob, lowers []string, data *os.File) error {
	merged := filepath.Join(job.Staging, "mnt")
	if err := os.Mkdir(merged, 0o700); err != nil {
		return err
	}
	var dirs []string
	for _, key := range job.Top {
		dirs = append(dirs, store.Dir(key))
	}
	// One directory alone is no overlay.
	if err := mountMerged(append(dirs, filepath.Join(job.Staging, "fs")), merged); err != nil {
		return err
	}
	v := layers.View{
		Upper: merged, Full: true, Lowers: lowers, Owned: dirs, IDs: s.req.IDs,
		Note: func(text string) { s.tell(event{Note: text}) },
	}
	_, err := v.Pack(ctx, data)
	return err
}

// mountMerged mounts layers for reading, in the stage's own mount namespace.
func mountMerged(dirs []string, target string) error {
	var numbers []string
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: dir, Err: err}
		}
		defer unix.Close(fd)
		numbers = append(numbers, strconv.Itoa(fd))
	}
	if err := os.Chdir("/proc/self/fd"); err != nil {
		return err
	}
	options := "userxattr,lowerdir=" + strings.Join(numbers, ":")
	if err := unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, options); err != nil {
		return fmt.Errorf("mount the layers: %w", err)
	}
	return nil
}
