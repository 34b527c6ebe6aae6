package treetar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Options say what Extract takes over from a stream.
type Options struct {
	// Owner gives the owner of an entry; nil leaves everything to whom the
	// caller is, which is what one without privileges can do.
	Owner func(Owned) Owned
	// Privileges takes set-id bits, capabilities and ACLs over, the bits of a
	// file only if its owner could be set.
	Privileges bool
	// Rename puts To in the place of From, the first component of names; "."
	// is the stream's top itself. Both "" renames nothing.
	From, To string
	// Follow opens a directory that some entry's path needs and that is a
	// symlink, by its path below the directory of the extraction; nil refuses.
	// A symlink of the stream itself is always refused.
	Follow func(unsafePath string) (*os.File, error)
	// Note is told what was left out; nil: nobody listens.
	Note func(text string)
}

// Errors of a stream that doesn't fit what is there.
var (
	ErrNotDirectory = errors.New("a file is in the way of a directory")
	ErrDirectory    = errors.New("a directory is in the way of a file")
	ErrOutside      = errors.New("its name leads outside")
	errName         = errors.New("its name is none")
)

// Extract unpacks a tar stream into a directory that has files already, and
// that others may use meanwhile. It returns the bytes of the files' content.
//
// A file replaces what is no directory; a directory joins the one that is
// there, whose attributes stay. Neither takes the place of the other. After an
// error what came before it stays, and no part of the file it met.
func Extract(ctx context.Context, r io.Reader, dir *os.File, o Options) (int64, error) {
	e := &extraction{o: o, ctx: ctx, buf: make([]byte, fileBuffer)}
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir.Name(), Err: err}
	}
	e.stack = []level{{fd: fd}}
	err = e.run(r)
	// What was made gets its modes and times also after an error.
	if leave := e.leave(0); err == nil {
		err = leave
	}
	e.notes()
	return e.bytes, err
}

type extraction struct {
	o     Options
	ctx   context.Context //nolint:containedctx // of one call
	buf   []byte
	stack []level // the directories on the way to the last entry, outermost first
	bytes int64
	left  []leftOut
	holes Sparse
	// links are the symlinks that the stream made, kept for Follow.
	links map[inode]bool
}

// leftOut counts what was left out of one kind, and tells the first of it.
type leftOut struct {
	kind, text string
	more       int
}

// level is a directory that is open.
type level struct {
	fd   int
	name string
	made *tar.Header // of one that was made here: set when it is left
}

func (e *extraction) run(r io.Reader) error {
	in := &positioned{r: r}
	archive := tar.NewReader(in)
	var read int64 // where the last entry's content ended
	for {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			// archive/tar takes an end amid padding for a good one.
			if in.at%512 != 0 && in.at != read {
				return fmt.Errorf("read the tar stream: %w", io.ErrUnexpectedEOF)
			}
			return nil
		}
		if errors.Is(err, tar.ErrHeader) {
			return fmt.Errorf("not a tar stream, or a damaged one: %w", err)
		}
		if err != nil {
			return fmt.Errorf("read the tar stream: %w", err)
		}
		if err := e.entry(h, archive); err != nil {
			return fmt.Errorf("%s: %w", Printable(h.Name), err)
		}
		read = in.at
	}
}

// positioned is a reader that knows how much was read.
type positioned struct {
	r  io.Reader
	at int64
}

func (p *positioned) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}

func (e *extraction) note(kind, format string, args ...any) {
	for i := range e.left {
		if e.left[i].kind == kind {
			e.left[i].more++
			return
		}
	}
	e.left = append(e.left, leftOut{kind: kind, text: fmt.Sprintf(format, args...)})
}

// notes tells what was left out, a line a kind.
func (e *extraction) notes() {
	for _, l := range e.left {
		if e.o.Note == nil {
			return
		}
		if l.more > 0 {
			l.text += fmt.Sprintf(" (and %d more of the kind)", l.more)
		}
		e.o.Note(l.text)
	}
}

// rename cleans a name and puts it in its place. "" is the directory of the
// extraction itself.
func (e *extraction) rename(unsafeName string) (string, error) {
	if strings.IndexByte(unsafeName, 0) >= 0 {
		return "", errName
	}
	name := path.Clean(strings.TrimLeft(unsafeName, "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", ErrOutside
	}
	if e.o.From != "" {
		first, rest, _ := strings.Cut(name, "/")
		switch {
		case e.o.From == ".":
			name = path.Join(e.o.To, name)
		case first == e.o.From:
			name = path.Join(e.o.To, rest)
		}
	}
	if name == "." {
		name = ""
	}
	return name, nil
}

func (e *extraction) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := e.rename(h.Name)
	if err != nil || name == "" {
		return err
	}
	parent, base := path.Split(name)
	dirfd, err := e.enter(strings.TrimSuffix(parent, "/"))
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return e.directory(dirfd, base, h)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		if err := e.holes.Add(h); err != nil {
			return err
		}
		return e.file(dirfd, base, h, content)
	case tar.TypeSymlink:
		return e.symlink(dirfd, base, h)
	case tar.TypeFifo:
		return e.put(dirfd, base, h, func() error { return call("mkfifo", unix.Mknodat(dirfd, base, unix.S_IFIFO|0o600, 0)) })
	case tar.TypeLink:
		return e.link(name, h)
	case tar.TypeChar, tar.TypeBlock:
		e.note("device", "device node %s is left out", Printable(h.Name))
		return nil
	}
	return fmt.Errorf("an entry of the unknown type %q", h.Typeflag)
}

func call(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// enter makes the directory of a path the innermost that is open, and makes
// what is missing of it.
func (e *extraction) enter(parent string) (int, error) {
	var parts []string
	if parent != "" {
		parts = strings.Split(parent, "/")
	}
	same := 0
	for same < len(parts) && same+1 < len(e.stack) && e.stack[same+1].name == parts[same] {
		same++
	}
	if err := e.leave(same + 1); err != nil {
		return -1, err
	}
	for i := same; i < len(parts); i++ {
		if len(e.stack) > maxDepth {
			return -1, unix.ENAMETOOLONG
		}
		fd, made, err := e.open(parts[:i+1])
		if err != nil {
			return -1, fmt.Errorf("its directory %s: %w", Printable(strings.Join(parts[:i+1], "/")), err)
		}
		e.stack = append(e.stack, level{fd, parts[i], made})
	}
	return e.top(), nil
}

func (e *extraction) top() int { return e.stack[len(e.stack)-1].fd }

// open opens the last component of a path in the innermost open directory.
func (e *extraction) open(parts []string) (fd int, made *tar.Header, err error) {
	base := parts[len(parts)-1]
	fd, err = openDir(e.top(), base)
	switch {
	case err == nil:
		return fd, nil, nil
	case errors.Is(err, unix.ENOENT):
		if err := unix.Mkdirat(e.top(), base, 0o700); err != nil {
			return -1, nil, call("mkdir", err)
		}
		fd, err = openDir(e.top(), base)
		return fd, &tar.Header{Mode: 0o755}, call("open", err)
	case e.o.Follow != nil && !e.linked(base) && (errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)):
		f, err := e.o.Follow(strings.Join(parts, "/"))
		if err != nil {
			return -1, nil, err
		}
		defer f.Close()
		fd, err = openDir(int(f.Fd()), ".")
		return fd, nil, call("open", err)
	}
	return -1, nil, call("open", err)
}

// linked says whether an entry of the innermost directory is a symlink of the
// stream.
func (e *extraction) linked(base string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(e.top(), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err != nil || e.links[inode{st.Dev, st.Ino}]
}

func openDir(dirfd int, base string) (int, error) {
	return unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// leave closes the open directories but for the outermost n. Those that were
// made here get their attributes now, when nothing more comes into them.
func (e *extraction) leave(n int) error {
	var first error
	for len(e.stack) > n {
		l := e.stack[len(e.stack)-1]
		e.stack = e.stack[:len(e.stack)-1]
		if l.made != nil {
			if err := e.attributes(l.fd, l.made); err != nil && first == nil {
				first = fmt.Errorf("%s: %w", Printable(l.name), err)
			}
		}
		_ = unix.Close(l.fd)
	}
	return first
}

func (e *extraction) directory(dirfd int, base string, h *tar.Header) error {
	err := unix.Mkdirat(dirfd, base, 0o700)
	made := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return call("mkdir", err)
	}
	fd, err := openDir(dirfd, base)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: %w", ErrNotDirectory, fs.ErrExist)
	}
	if err != nil {
		return call("open", err)
	}
	l := level{fd: fd, name: base}
	if made {
		l.made = h
	}
	e.stack = append(e.stack, l)
	return nil
}

// put makes what is no directory, in the place of what else has the name.
func (e *extraction) put(dirfd int, base string, h *tar.Header, create func() error) error {
	err := create()
	if errors.Is(err, unix.EEXIST) {
		if err = e.unlink(dirfd, base); err == nil {
			err = create()
		}
	}
	if err != nil || h.Typeflag == tar.TypeLink {
		return err
	}
	if err := e.attributesAt(dirfd, base, h); err != nil {
		_ = unix.Unlinkat(dirfd, base, 0)
		return err
	}
	return nil
}

// unlink removes what is no directory. What is mounted on stays (EBUSY): from
// another mount namespace unlink(2) takes the mount away instead.
func (e *extraction) unlink(dirfd int, base string) error {
	var st unix.Statx_t
	err := unix.Statx(dirfd, base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return call("unlink", unix.EBUSY)
	}
	err = unix.Unlinkat(dirfd, base, 0)
	if errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("%w: %w", ErrDirectory, fs.ErrExist)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return call("unlink", err)
}

func (e *extraction) symlink(dirfd int, base string, h *tar.Header) error {
	err := e.put(dirfd, base, h, func() error { return call("symlink", unix.Symlinkat(h.Linkname, dirfd, base)) })
	if err != nil || e.o.Follow == nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return call("fstatat", err)
	}
	if e.links == nil {
		e.links = map[inode]bool{}
	}
	e.links[inode{st.Dev, st.Ino}] = true
	return nil
}

// link makes a hard link to an entry that came before. Its parent is found
// without leaving the directory of the new name.
func (e *extraction) link(name string, h *tar.Header) error {
	target, err := e.rename(h.Linkname)
	if err != nil || target == "" {
		return errors.Join(fmt.Errorf("a hard link to %s", Printable(h.Linkname)), err)
	}
	fromfd, from, err := e.find(target)
	if err != nil {
		return fmt.Errorf("a hard link to %s: %w", Printable(h.Linkname), err)
	}
	defer unix.Close(fromfd)
	dirfd, base := e.top(), path.Base(name)
	if target == name {
		return nil
	}
	return e.put(dirfd, base, h, func() error { return call("link", unix.Linkat(fromfd, from, dirfd, base, 0)) })
}

// find opens the directory of a path from the outermost one, a component at a
// time.
func (e *extraction) find(name string) (dirfd int, base string, err error) {
	parent, base := path.Split(name)
	fd, err := openDir(e.stack[0].fd, ".")
	for part := range strings.SplitSeq(strings.TrimSuffix(parent, "/"), "/") {
		if part == "" || err != nil {
			continue
		}
		var next int
		next, err = openDir(fd, part)
		_ = unix.Close(fd)
		fd = next
	}
	return fd, base, err
}

// Printable is a name of a stream as an error shows it: no control bytes for
// the terminal, no more of it than helps.
func Printable(unsafeName string) string {
	const longest = 120
	quoted := fmt.Sprintf("%+q", unsafeName)
	if quoted == `"`+unsafeName+`"` {
		quoted = unsafeName
	}
	if len(quoted) > longest {
		quoted = quoted[:longest/2] + "…" + quoted[len(quoted)-longest/2:]
	}
	return quoted
}
