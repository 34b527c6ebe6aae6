package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RuntimeDir finds the directory for what ends with the boot: the control
// sockets of containers whose data root lies on a file system without
// sockets. The second result says which step of the ladder it is. It is made
// when it is used.
func RuntimeDir() (dir, why string) {
	uid := os.Geteuid()
	given := os.Getenv("XDG_RUNTIME_DIR")
	switch {
	case given == "":
		why = "XDG_RUNTIME_DIR is unset"
	case !filepath.IsAbs(given): // the XDG base directory spec ignores it
		why = fmt.Sprintf("XDG_RUNTIME_DIR (%s) is not an absolute path", given)
	case !ours(given):
		why = fmt.Sprintf("XDG_RUNTIME_DIR (%s) is not a writable directory of ours", given)
	default:
		return filepath.Join(given, "nook"), "from XDG_RUNTIME_DIR"
	}
	if run := fmt.Sprintf("/run/user/%d", uid); ours(run) {
		return filepath.Join(run, "nook"), why
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("nook-%d", uid)), why
}

// ours tells whether dir is a directory that we own and can write to.
func ours(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR &&
		int(st.Uid) == os.Geteuid() && unix.Access(dir, unix.W_OK|unix.X_OK) == nil
}

// makeRuntimeDir makes the directory, and refuses one that another user put
// in its place: /tmp is everybody's.
func makeRuntimeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the runtime directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("make the runtime directory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return fmt.Errorf("runtime directory %s: not a directory of ours alone: %w", dir, fs.ErrPermission)
	}
	return nil
}
