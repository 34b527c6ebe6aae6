package layers

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Making is a layer that is made file by file on top of others, as COPY and
// WORKDIR of a Dockerfile do. It sees what an overlay of it and of those below
// would show, and mounts nothing. It runs in a stage. A spot is used by one
// goroutine, different ones by several.
type Making struct {
	// Latest is the latest time that a file gets; zero: no limit.
	Latest time.Time
	// Now is the time of a root directory that has none below; zero: its own.
	Now time.Time
	// Note is told what was left out; nil: nobody listens.
	Note func(text string)

	ids  IDs
	dir  string // of the layer: fs is in it
	root int
	low  *merged // the layers below
	both *merged // with this one on top

	mu     sync.Mutex
	owners map[string]Owner // of Single, by path
	whose  func(layer int, name string) (Owner, bool)
	meta   Meta

	// linking guards links, the first names of files with several, until the
	// file of a first name is there.
	linking sync.Mutex
	links   map[fileID]string
}

type fileID struct{ dev, ino uint64 }

// Make begins a layer in dir/fs, which is there, on top of the directories
// lowers, topmost first.
func Make(dir string, lowers []string, ids IDs) (*Making, error) {
	m := &Making{
		ids: ids, dir: dir, root: -1, links: map[fileID]string{},
		owners: map[string]Owner{}, whose: ownersBelow(lowers),
	}
	fs := filepath.Join(dir, "fs")
	var err error
	if m.root, err = unix.Open(fs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, &os.PathError{Op: "open", Path: fs, Err: err}
	}
	if m.low, err = openMerged(lowers); err == nil {
		m.both, err = openMerged(append([]string{fs}, lowers...))
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Close lets go of the directories.
func (m *Making) Close() {
	if m.root >= 0 {
		_ = unix.Close(m.root)
		m.root = -1
	}
	for _, view := range []*merged{m.low, m.both} {
		if view != nil {
			view.close()
		}
	}
}

// Done writes what the files alone don't tell, and gives what Place wants to
// know of the layer. The root directory gets the time of the one below, so that
// it doesn't depend on the clock.
func (m *Making) Done() (Meta, error) {
	at := m.Now
	if len(m.low.roots) > 0 {
		var below unix.Stat_t
		if err := unix.Fstat(m.low.roots[0], &below); err != nil {
			return Meta{}, fmt.Errorf("fstat: %w", err)
		}
		at = time.Unix(below.Mtim.Sec, below.Mtim.Nsec)
	}
	if !at.IsZero() {
		if err := unix.UtimesNanoAt(m.root, ".", m.times(at), 0); err != nil {
			return Meta{}, fmt.Errorf("utimensat: %w", err)
		}
	}
	return m.meta, writeOwners(filepath.Join(m.dir, ownersFile), slices.Collect(maps.Values(m.owners)))
}

// Kind is what stands under a path.
type Kind int

// The kinds of Real.
const (
	Nothing Kind = iota
	Directory
	OtherFile
)

// Real follows the symlinks of a path, as after a chroot(2) to the view, and
// gives the path without any that it leads to, relative to the root; "." is
// the root itself. What is missing of it is taken as it stands.
func (m *Making) Real(unsafePath string) (string, Kind, error) { return m.both.real(unsafePath) }

// RealIn is Real of the directories of layers, topmost first.
func RealIn(dirs []string, unsafePath string) (string, Kind, error) {
	v, err := openMerged(dirs)
	if err != nil {
		return "", Nothing, err
	}
	defer v.close()
	return v.real(unsafePath)
}

func (v *merged) real(unsafePath string) (string, Kind, error) {
	var done []string
	links, kind := 0, Directory
	missing := 0 // how many at the end of done aren't there
	for rest := unsafePath; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			missing = max(0, missing-1)
			kind = Directory
			continue
		}
		if missing > 0 {
			done = append(done, part)
			missing++
			continue
		}
		in, at, err := v.lstat(strings.Join(append(done[:len(done):len(done)], part), "/"))
		if errors.Is(err, unix.ENOENT) {
			done = append(done, part)
			missing++
			continue
		}
		if err != nil {
			return "", Nothing, fmt.Errorf("%s: %w", printable(unsafePath), err)
		}
		if !at.isLink() {
			kind = OtherFile
			if at.isDir() {
				kind = Directory
			}
			in.close()
			if kind == OtherFile && strings.Trim(rest, "/") != "" {
				return "", Nothing, fmt.Errorf("%s: %w", printable(unsafePath), unix.ENOTDIR)
			}
			done = append(done, part)
			continue
		}
		target, err := readLink(at)
		in.close()
		if err != nil {
			return "", Nothing, err
		}
		if links++; links > maxLinks {
			return "", Nothing, fmt.Errorf("%s: %w", printable(unsafePath), unix.ELOOP)
		}
		if strings.HasPrefix(target, "/") {
			done = done[:0]
		}
		rest = target + "/" + rest
		kind = Directory
	}
	if missing > 0 {
		kind = Nothing
	}
	if len(done) == 0 {
		return ".", Directory, nil
	}
	return strings.Join(done, "/"), kind, nil
}

// Look are the attributes that something made gets.
type Look struct {
	Mode     uint32 // permissions, set-id bits and sticky bit
	UID, GID uint32 // as in the image
	Time     time.Time
	xattrs   []xattr
}

// Spot is a directory of the layer, open for what is put into it. Its times
// are set when it is closed.
type Spot struct {
	m     *Making
	path  string
	fd    int
	low   *mergedDir // nil: nothing below shows in it
	old   *mergedDir // of copying.old, while its contents are copied
	times []unix.Timespec
	fresh bool // just made, nothing is in it
}

// Root is the layer's root directory.
func (m *Making) Root() *Spot {
	s := &Spot{m: m, path: ".", fd: m.root}
	if len(m.low.roots) > 0 {
		s.low = m.low.root()
	}
	return s
}

// Close sets its times.
func (s *Spot) Close() error {
	var err error
	if s.times != nil {
		if err = unix.UtimesNanoAt(s.fd, ".", s.times, 0); err != nil {
			err = fmt.Errorf("%s: utimensat: %w", printable(s.path), err)
		}
	}
	if s.path != "." {
		_ = unix.Close(s.fd)
		if s.low != nil {
			s.low.close()
		}
	}
	return err
}

// lstat finds what the view shows under a name; nil: nothing.
func (s *Spot) lstat(name string) (*place, error) {
	at := &place{dirfd: s.fd, name: name, layer: -1}
	err := unix.Fstatat(s.fd, name, &at.stat, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		return at, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("fstatat: %w", err)
	}
	if s.low == nil {
		return nil, nil
	}
	at, err = s.low.lookup(name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return at, err
}

// Enter opens a directory that the view shows, and makes it in the layer as it
// is below. The error is ENOENT or ENOTDIR where there is none.
func (s *Spot) Enter(name string) (*Spot, error) {
	at, err := s.lstat(name)
	switch {
	case err != nil:
		return nil, err
	case at == nil:
		return nil, unix.ENOENT
	case !at.isDir():
		return nil, unix.ENOTDIR
	}
	in := &Spot{m: s.m, path: path.Join(s.path, name), fd: -1}
	if s.low != nil {
		in.low, err = s.low.enter(name)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			return nil, err
		}
	}
	if at.layer < 0 {
		// Made here before, maybe over something else than a directory.
		if in.fd, err = openDir(s.fd, name); err != nil {
			in.forget()
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(in.fd, &st); err == nil {
			in.times = []unix.Timespec{st.Atim, st.Mtim}
		}
		return in, nil
	}
	look, err := inheritLook(at)
	if err == nil {
		err = in.make(s.fd, name, look)
	}
	if err != nil {
		in.forget()
		return nil, err
	}
	s.m.inherit(in.path, at.layer)
	return in, nil
}

func (s *Spot) forget() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
	}
	if s.low != nil {
		s.low.close()
	}
}

func openDir(dirfd int, name string) (int, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	return fd, nil
}

// inheritLook is what a directory of a layer below looks like.
func inheritLook(at *place) (Look, error) {
	fd, err := openDir(at.dirfd, at.name)
	if err != nil {
		return Look{}, err
	}
	defer unix.Close(fd)
	look := Look{
		Mode: at.stat.Mode & 0o7777, UID: at.stat.Uid, GID: at.stat.Gid,
		Time: time.Unix(at.stat.Mtim.Sec, at.stat.Mtim.Nsec),
	}
	look.xattrs, err = readXattrs(fd)
	return look, err
}

// Mkdir makes a directory where the view shows none.
func (s *Spot) Mkdir(name string, look Look) (*Spot, error) {
	in := &Spot{m: s.m, path: path.Join(s.path, name), fd: -1, fresh: true}
	if err := in.make(s.fd, name, look); err != nil {
		in.forget()
		return nil, err
	}
	s.m.own(in.path, look)
	return in, nil
}

// make makes the directory and opens it.
func (s *Spot) make(dirfd int, name string, look Look) error {
	if marked(name) {
		return errMarker
	}
	if err := unix.Mkdirat(dirfd, name, 0o700); err != nil {
		return fmt.Errorf("mkdir: %w", err)
	}
	var err error
	if s.fd, err = openDir(dirfd, name); err != nil {
		return err
	}
	s.m.count(0)
	return s.Set(look)
}

// Set gives the directory other attributes.
func (s *Spot) Set(look Look) error {
	s.times = s.m.times(look.Time)
	return s.m.dress(s.fd, look)
}

// dress sets what an open file looks like, but for its times: the owner first,
// since chown(2) clears set-id bits and capabilities.
func (m *Making) dress(fd int, look Look) error {
	if m.ids != Single && (look.UID != 0 || look.GID != 0) {
		if err := unix.Fchown(fd, int(look.UID), int(look.GID)); err != nil {
			return ownerError(&attributes{uid: look.UID, gid: look.GID}, err)
		}
	}
	if err := unix.Fchmod(fd, look.Mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	for _, x := range look.xattrs {
		if err := unix.Fsetxattr(fd, x.name, []byte(x.value), 0); err != nil && fatalXattr(err) {
			return fmt.Errorf("fsetxattr %s: %w", printable(x.name), err)
		}
	}
	return nil
}

func (m *Making) times(t time.Time) []unix.Timespec {
	if !m.Latest.IsZero() && t.After(m.Latest) {
		t = m.Latest
	}
	at := timespec(t)
	return []unix.Timespec{at, at}
}

// own writes down the owner that the file system can't have.
func (m *Making) own(name string, look Look) {
	if m.ids != Single {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if look.UID == 0 && look.GID == 0 {
		delete(m.owners, name)
		return
	}
	m.owners[name] = Owner{Path: name, UID: look.UID, GID: look.GID}
}

// inherit gives a directory the owner that it has in a layer below.
func (m *Making) inherit(name string, layer int) {
	if m.ids != Single {
		return
	}
	m.mu.Lock()
	o, _ := m.whose(layer, name)
	m.mu.Unlock()
	m.own(name, Look{UID: o.UID, GID: o.GID})
}

// ownAs gives a name the owner of another name of the same file.
func (m *Making) ownAs(name, of string) {
	m.mu.Lock()
	o := m.owners[of]
	m.mu.Unlock()
	m.own(name, Look{UID: o.UID, GID: o.GID})
}

// leaveOut tells of a file that is not made, because a layer can't have it.
func (m *Making) leaveOut(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.Note != nil {
		m.Note(leftOut(name))
	}
}

func (m *Making) count(bytes int64) {
	m.mu.Lock()
	m.meta.Entries++
	m.meta.Bytes += bytes
	m.mu.Unlock()
}

// MkdirAll opens a directory by its path without symlinks (Real), and makes
// what is missing of it.
func (m *Making) MkdirAll(way string, look Look) (*Spot, error) {
	s := m.Root()
	if way == "." {
		return s, nil
	}
	for part := range strings.SplitSeq(way, "/") {
		in, err := s.Enter(part)
		if errors.Is(err, unix.ENOENT) {
			in, err = s.Mkdir(part, look)
		}
		closed := s.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", inImage(way), err)
		}
		if s = in; closed != nil {
			_ = s.Close()
			return nil, closed
		}
	}
	return s, nil
}

// clear makes room for what is no directory.
func (s *Spot) clear(name string) error {
	at, err := s.lstat(name)
	switch {
	case err != nil || at == nil:
		return err
	case at.isDir():
		return ErrIsDirectory
	case at.layer >= 0:
		return nil
	}
	if err := unix.Unlinkat(s.fd, name, 0); err != nil {
		return fmt.Errorf("unlink: %w", err)
	}
	gone := path.Join(s.path, name)
	s.m.own(gone, Look{})
	s.m.linking.Lock()
	defer s.m.linking.Unlock()
	maps.DeleteFunc(s.m.links, func(_ fileID, first string) bool { return first == gone })
	return nil
}
