package engine

import (
	"nook/containers"
	"nook/internal/hint"
	"nook/rootfs"
)

// shmSize is docker's size of /dev/shm, in bytes.
const shmSize = 64 << 20

// shmOf is the size of a container's /dev/shm in bytes.
func shmOf(cfg *containers.Config) int64 {
	if cfg.ShmSize > 0 {
		return cfg.ShmSize
	}
	return shmSize
}

// limit writes down how large a container's file systems in memory are. Only
// those have a size: a directory has none without a quota, which is root's to
// give, so a writable layer with a limit lies in a tmpfs, which ends with the
// container.
func limit(cfg *containers.Config, o RunOptions) error {
	if o.ShmSize < 0 {
		return hint.Errorf("it is in bytes, or with a unit: 64m", "--shm-size %d: less than nothing", o.ShmSize)
	}
	cfg.ShmSize = o.ShmSize
	if o.LayerSize == 0 {
		return nil
	}
	if o.LayerSize < 0 {
		return hint.Errorf("it is in bytes, or with a unit: 1g", "--storage-opt size=%d: less than nothing", o.LayerSize)
	}
	if !o.Remove {
		return hint.Errorf("use it with --rm, or put what grows into a --tmpfs DST:size=N",
			"--storage-opt size: only a layer in memory has a limit, and that is gone when the container ends")
	}
	cfg.LayerSize, cfg.Rootfs = o.LayerSize, string(rootfs.OverlayTmpfs)
	return nil
}
