package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/safepath"
)

// Where docker cp puts what (docker's documentation of "container cp", and
// archive.PrepareArchiveCopy in moby):
//
//	source       destination            becomes
//	a file       a file, or nothing     that name
//	a file       nothing, ends in /     an error
//	a file       a directory            destination/name
//	a directory  nothing                that name
//	a directory  a directory            destination/name, or for source/. what is in it
//	a directory  a file                 an error

// Errors of a copy whose two sides don't fit.
var (
	errCopyDirectory = errors.New("a directory is not copied to a file")
	errNoDirectory   = errors.New("no such directory")
	errCopySpecial   = errors.New("the destination must be a directory or a regular file")
)

// copySource is what is copied, as far as its name matters.
type copySource struct {
	Base string `json:"base"` // "." is what is in a directory
	Dir  bool   `json:"dir"`
}

// destination is where a copy goes.
type destination struct {
	dir  *os.File // of the entry, or the destination itself if it is a directory
	name string   // the entry's; "" when dir is the destination
}

func (d *destination) close() { _ = d.dir.Close() }

// to is the name below dir that the top of the stream gets.
func (d *destination) to(src copySource) string {
	if d.name == "" {
		return src.Base
	}
	return d.name
}

// place finds the destination of a copy in root. A nil source is a stream of
// many entries, for which only a directory does. The last component's symlinks
// are followed, as docker does, also where they lead to nothing yet.
func place(root *safepath.Root, unsafePath string, src *copySource) (*destination, error) {
	const links = 40 // the kernel's MAXSYMLINKS
	here := unsafePath
	for range links {
		dir, base, err := root.OpenParent(here)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", path.Dir(strings.TrimRight(here, "/")), errNoDirectory)
		}
		if err != nil {
			return nil, err
		}
		var st unix.Stat_t
		err = unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case errors.Is(err, unix.ENOENT):
			return placeNew(dir, base, here, src)
		case err != nil:
			_ = dir.Close()
			return nil, &os.PathError{Op: "stat", Path: here, Err: err}
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := readlinkAt(dir, base)
			_ = dir.Close()
			if err != nil {
				return nil, &os.PathError{Op: "readlink", Path: here, Err: err}
			}
			if !path.IsAbs(target) {
				// Not cleaned: ".." is that of the directory it leads through.
				target = path.Dir(strings.TrimRight(here, "/")) + "/" + target
			}
			here = target
		default:
			return placeOver(dir, base, here, st.Mode&unix.S_IFMT, src)
		}
	}
	return nil, &os.PathError{Op: "stat", Path: unsafePath, Err: unix.ELOOP}
}

func placeNew(dir *os.File, base, here string, src *copySource) (*destination, error) {
	if src == nil || !src.Dir && strings.HasSuffix(here, "/") {
		_ = dir.Close()
		return nil, hint.Errorf("a path that ends in / is a directory that is there already", "%s: %w", here, errNoDirectory)
	}
	return &destination{dir, base}, nil
}

// placeOver is for a destination that is there.
func placeOver(dir *os.File, base, here string, kind uint32, src *copySource) (*destination, error) {
	fail := func(err error) (*destination, error) {
		_ = dir.Close()
		return nil, fmt.Errorf("%s: %w", here, err)
	}
	switch {
	case kind == unix.S_IFDIR:
		fd, err := unix.Openat(int(dir.Fd()), base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail(err)
		}
		_ = dir.Close()
		return &destination{dir: os.NewFile(uintptr(fd), here)}, nil
	case kind != unix.S_IFREG:
		return fail(errCopySpecial)
	case src == nil, strings.HasSuffix(here, "/"):
		return fail(unix.ENOTDIR)
	case src.Dir:
		return fail(errCopyDirectory)
	}
	return &destination{dir, base}, nil
}

func readlinkAt(dir *os.File, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// insidePath is a path of a container as docker reads it: absolute, without
// "..", a slash or "/." at its end kept.
func insidePath(unsafePath string) string { return keepEnd(path.Clean("/"+unsafePath), unsafePath) }

// outsidePath is the same for one of ours, from the working directory.
func outsidePath(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return keepEnd(abs, name), nil
}

// keepEnd gives a cleaned path the end that it had.
func keepEnd(cleaned, before string) string {
	switch {
	case cleaned == "/":
		return "/."
	case before == ".", strings.HasSuffix(before, "/."):
		return cleaned + "/."
	case strings.HasSuffix(before, "/"):
		return cleaned + "/"
	}
	return cleaned
}

// sourceOf is the name that a path's copy gets.
func sourceOf(cleaned string, dir bool) copySource {
	if strings.HasSuffix(cleaned, "/.") {
		return copySource{".", dir}
	}
	return copySource{path.Base(cleaned), dir}
}
