package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Own tells whether paths of the root surely lead to its own files, whatever is
// mounted: no mount covers them, and no symlink is on the way to them or to a
// mount's target. It looks at the layers; what it can't see there is a no, and
// so are many of them, which would take longer to look at than to wait.
func (r *Root) Own(paths ...string) bool {
	targets := make([]string, 0, len(r.Binds)+len(r.Tmpfs)+len(r.Secrets))
	for _, b := range r.Binds {
		targets = append(targets, b.Target)
	}
	for _, t := range r.Tmpfs {
		targets = append(targets, t.Target)
	}
	for _, s := range r.Secrets {
		if s.Target == "" {
			s.Target = SecretsDir
		}
		targets = append(targets, s.Target)
	}
	if len(targets) == 0 {
		return true
	}
	const many = 16
	if len(r.Lowers) > many {
		return false
	}
	for _, p := range paths {
		for _, t := range targets {
			if p == t || strings.HasPrefix(p, t+"/") {
				return false
			}
		}
	}
	seen := map[string]bool{}
	for _, p := range append(targets, paths...) {
		for i := 1; i <= len(p); i++ {
			if i < len(p) && p[i] != '/' || seen[p[:i]] {
				continue
			}
			seen[p[:i]] = true
			if r.maybeLink(p[:i]) {
				return false
			}
		}
	}
	return true
}

// maybeLink tells whether a path may be a symlink in one of the layers.
func (r *Root) maybeLink(path string) bool {
	dirs := []string{r.Upper.Path}
	if r.Kind == Copy {
		dirs = []string{r.Dir}
	}
	for _, l := range r.Lowers {
		dirs = append(dirs, l.Path)
	}
	for _, dir := range dirs {
		if dir == "" {
			continue // a tmpfs, new and empty
		}
		st, err := os.Lstat(filepath.Join(dir, path))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		case err != nil, st.Mode()&fs.ModeSymlink != 0:
			return true
		}
	}
	return false
}
