package containers

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/internal/safepath"
)

// secretsDir is rootfs.SecretsDir.
const secretsDir = "/run/secrets"

// removeMountPoints removes what a start puts into the writable layer for
// mounts to stand on, and WORKDIR, and the layer if that was all: else a -v on
// a path that the image lacks would make of each end a matter for the user
// namespace. It is for a container that is removed in any case; what its
// symlinks lead to in the layer goes as well.
func (c Container) removeMountPoints() bool {
	cfg, err := c.Config()
	if err != nil {
		return false
	}
	upper := filepath.Join(c.Path, "upper")
	root, err := safepath.OpenRoot(upper)
	if err != nil {
		return false
	}
	defer root.Close()
	points := []string{cfg.WorkingDir}
	for _, m := range cfg.Mounts {
		points = append(points, m.Target)
	}
	for _, s := range cfg.Secrets {
		points = append(points, s.Target)
		if s.Target == "" {
			points = append(points, secretsDir)
		}
	}
	for _, point := range points {
		for ; point != "/" && point != "."; point = path.Dir(point) {
			if !removeEmpty(root, point) {
				break
			}
		}
	}
	return unix.Rmdir(upper) == nil
}

// removeEmpty removes an empty directory or a file, and tells whether it is
// gone.
func removeEmpty(root *safepath.Root, unsafePath string) bool {
	dir, base, err := root.OpenParent(unsafePath)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer dir.Close()
	fd := int(dir.Fd())
	err = unix.Unlinkat(fd, base, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTDIR) {
		err = unix.Unlinkat(fd, base, 0)
	}
	return err == nil || errors.Is(err, fs.ErrNotExist)
}
