package layers

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// merged is what overlayfs would show of a stack of layer directories, for
// reading. It holds their roots open.
type merged struct {
	roots []int // topmost first
}

// place is where the merged view takes an entry from.
type place struct {
	layer int // index, 0 is the topmost
	dirfd int // of the directory in that layer
	name  string
	stat  unix.Stat_t
}

func (p *place) isDir() bool  { return p.stat.Mode&unix.S_IFMT == unix.S_IFDIR }
func (p *place) isLink() bool { return p.stat.Mode&unix.S_IFMT == unix.S_IFLNK }

func openMerged(dirs []string) (*merged, error) {
	m := &merged{}
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			m.close()
			return nil, &os.PathError{Op: "open layer", Path: dir, Err: err}
		}
		m.roots = append(m.roots, fd)
	}
	return m, nil
}

func (m *merged) close() {
	for _, fd := range m.roots {
		_ = unix.Close(fd)
	}
}

// mergedDir is one directory of the merged view: those of the layers that are
// part of it, topmost first.
type mergedDir struct {
	parts []part
}

type part struct {
	layer int
	fd    int
	owned bool // close it with the mergedDir
}

func (m *merged) root() *mergedDir {
	d := &mergedDir{}
	for i, fd := range m.roots {
		d.parts = append(d.parts, part{layer: i, fd: fd})
	}
	return d
}

func (d *mergedDir) close() {
	for _, p := range d.parts {
		if p.owned {
			_ = unix.Close(p.fd)
		}
	}
	d.parts = nil
}

// lookup finds an entry by its one component. Its place is good until d is
// closed. The error is unix.ENOENT where there is none.
func (d *mergedDir) lookup(name string) (*place, error) {
	for _, p := range d.parts {
		at := &place{layer: p.layer, dirfd: p.fd, name: name}
		err := unix.Fstatat(p.fd, name, &at.stat, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return nil, fmt.Errorf("fstatat %s: %w", name, err)
		case whiteoutStat(&at.stat):
			return nil, unix.ENOENT
		}
		return at, nil
	}
	return nil, unix.ENOENT
}

// enter opens a directory of the merged view: every layer's of that name down
// to the first that is opaque, or that hides the rest by being none.
func (d *mergedDir) enter(name string) (*mergedDir, error) {
	child := &mergedDir{}
	for _, p := range d.parts {
		fd, err := unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
			if len(child.parts) == 0 {
				return nil, unix.ENOTDIR
			}
			return child, nil
		case err != nil:
			child.close()
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
		child.parts = append(child.parts, part{p.layer, fd, true})
		if isOpaque(fd) {
			return child, nil
		}
	}
	if len(child.parts) == 0 {
		return nil, unix.ENOENT
	}
	return child, nil
}

func isOpaque(fd int) bool {
	var value [2]byte
	n, err := unix.Fgetxattr(fd, opaqueXattr, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// names lists the directory: every name that lookup finds, in no order.
func (d *mergedDir) names() ([]string, error) {
	seen := map[string]bool{}
	var names []string
	for _, p := range d.parts {
		here, err := treetar.Names(p.fd)
		if err != nil {
			return nil, err
		}
		for _, name := range here {
			if seen[name] {
				continue
			}
			seen[name] = true
			if !isWhiteout(p.fd, name) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// lstat finds an entry by a path without symlinks, "." included. The mergedDir
// it stands in has to be closed.
func (m *merged) lstat(name string) (*mergedDir, *place, error) {
	above, base := path.Split(name)
	d := m.root()
	for part := range strings.SplitSeq(strings.TrimSuffix(above, "/"), "/") {
		if part == "" {
			continue
		}
		next, err := d.enter(part)
		d.close()
		if err != nil {
			return nil, nil, err
		}
		d = next
	}
	at, err := d.lookup(base)
	if err != nil {
		d.close()
		return nil, nil, err
	}
	return d, at, nil
}

// resolve follows the symlinks of unsafePath, as after a chroot(2) to the view,
// and gives the path without any that it leads to, and what is there. Where
// follow is false the last component is not followed. The error is
// unix.ENOENT where there is nothing.
func (m *merged) resolve(unsafePath string, follow bool) (string, *unix.Stat_t, error) {
	var done []string
	links := 0
	stat := &unix.Stat_t{Mode: unix.S_IFDIR}
	for rest := unsafePath; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		here := strings.Join(append(done, part), "/")
		d, at, err := m.lstat(here)
		if err != nil {
			return "", nil, err
		}
		if !at.isLink() || !follow && strings.Trim(rest, "/") == "" {
			d.close()
			if !at.isDir() && strings.Trim(rest, "/") != "" {
				return "", nil, unix.ENOTDIR
			}
			done, stat = append(done, part), &at.stat
			continue
		}
		target, err := readLink(at)
		d.close()
		if err != nil {
			return "", nil, err
		}
		if links++; links > maxLinks {
			return "", nil, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			done = done[:0]
		}
		rest = target + "/" + rest
	}
	if len(done) == 0 {
		return ".", stat, nil
	}
	return strings.Join(done, "/"), stat, nil
}

func readLink(at *place) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at.dirfd, at.name, buf)
	if err != nil {
		return "", fmt.Errorf("readlinkat %s: %w", at.name, err)
	}
	return string(buf[:n]), nil
}
