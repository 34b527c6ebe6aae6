package layers

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveStub removes a mount point that a step's mount needed from the layer
// top: an empty directory or file that the layers below don't have, and the
// directories above it that are empty then and that they don't have either.
func RemoveStub(top string, lowers []string, target string) error {
	up, err := openMerged([]string{top})
	if err != nil {
		return err
	}
	defer up.close()
	low, err := openMerged(lowers)
	if err != nil {
		return err
	}
	defer low.close()
	both, err := openMerged(append([]string{top}, lowers...))
	if err != nil {
		return err
	}
	defer both.close()
	way, _, err := both.real(target)
	if err != nil {
		return nil // nothing was made there
	}
	for name := strings.Trim(way, "/"); name != "" && name != "."; {
		if d, _, err := low.lstat(name); err == nil {
			d.close()
			return nil
		}
		if gone, err := removeEmpty(up, name); !gone || err != nil {
			return err
		}
		i := strings.LastIndexByte(name, '/')
		name = name[:max(i, 0)]
	}
	return nil
}

// removeEmpty removes an empty file or directory by a path without symlinks.
func removeEmpty(v *merged, name string) (gone bool, err error) {
	d, at, err := v.lstat(name)
	if err != nil {
		return errors.Is(err, unix.ENOENT), nil
	}
	defer d.close()
	flags := 0
	switch {
	case at.isDir():
		flags = unix.AT_REMOVEDIR
	case at.stat.Mode&unix.S_IFMT != unix.S_IFREG || at.stat.Size > 0:
		return false, nil
	}
	err = unix.Unlinkat(at.dirfd, at.name, flags)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove the mount point %s: %w", printable(name), err)
	}
	return true, nil
}
