package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"nook/containers"
	"nook/rootfs"
)

// addSizes counts in a stage: files of the writable layers belong to ids of the
// user namespace, behind directories that are closed to ours.
func (e *Engine) addSizes(ctx context.Context, list []Summary) error {
	if len(list) == 0 {
		return nil
	}
	req := request{}
	for _, c := range list {
		req.Count = append(req.Count, c.ID)
	}
	var sizes []int64
	if err := e.stage(ctx, req, func(ev event) { sizes = append(sizes, ev.Sizes...) }); err != nil {
		return fmt.Errorf("count the files of containers: %w", err)
	}
	all, err := e.images.List(ctx)
	if err != nil {
		return err
	}
	below := map[string]int64{}
	for _, img := range all {
		below[img.ID] = max(img.UnpackedSize, img.Size)
	}
	for i := range min(len(list), len(sizes)) {
		c := &list[i]
		c.Size, c.RootSize = sizes[i], sizes[i]+below[c.ImageID]
		if c.rootfs == string(rootfs.Copy) { // the image's files are among them
			c.Size, c.RootSize = max(0, sizes[i]-below[c.ImageID]), sizes[i]
		}
	}
	return nil
}

// count is the stage's part.
func (s *stageRun) count(ctx context.Context) (event, error) {
	dir := containers.Open(containersDir(s.req.Root))
	for _, id := range s.req.Count {
		if err := ctx.Err(); err != nil {
			return event{}, err
		}
		var size int64
		for _, name := range []string{"upper", "rootfs"} {
			n, err := countFiles(ctx, filepath.Join(dir.At(id).Path, name))
			if err != nil {
				return event{}, err
			}
			size += n
		}
		s.tell(event{Sizes: []int64{size}})
	}
	return event{}, nil
}

// countFiles adds up the sizes of the regular files and symlinks under a
// directory, one of several names once, as docker does. The container may
// change it meanwhile, and no symlink of its leads out: an os.Root.
func countFiles(ctx context.Context, path string) (sum int64, err error) {
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer root.Close()
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil || d.IsDir():
			return nil //nolint:nilerr // it is gone by now
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it is gone by now
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			if seen[file{st.Dev, st.Ino}] {
				return nil
			}
			seen[file{st.Dev, st.Ino}] = true
		}
		if info.Mode().IsRegular() || info.Mode()&fs.ModeSymlink != 0 {
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}

func (s *stageRun) sweep() error {
	dir := containers.Open(containersDir(s.req.Root))
	var abandoned []containers.Container
	for _, id := range s.req.Sweep {
		abandoned = append(abandoned, dir.At(id))
	}
	return dir.Sweep(abandoned...)
}
