package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nook/build"
	"nook/images/layers"
	"nook/internal/treetar"
)

// contextTree is a build context: a directory of the host's without what its
// Filter leaves out. A directory is read when somebody asks for what is in it.
type contextTree struct {
	dir    string
	filter build.Filter
	root   *node
}

// node is a file of a context.
type node struct {
	name  string // in the context; "." for the top
	stat  unix.Stat_t
	link  string
	below any // the filter's answer, for what is in it
	kids  []*node
	read  bool
	out   bool // a directory that is only there for what is in it
	// sum is of a file's content and attributes; attrs are a directory's.
	sum   [sha256.Size]byte
	attrs string
	// group is a number that those names have in common that are one file; 0:
	// there is one name of it.
	group int
}

func (n *node) is(kind uint32) bool { return n.stat.Mode&unix.S_IFMT == kind }

func openContext(dir string, filter build.Filter) (*contextTree, error) {
	t := &contextTree{dir: dir, filter: filter, root: &node{name: "."}}
	if err := unix.Stat(dir, &t.root.stat); err != nil {
		return nil, fmt.Errorf("build context %s: %w", dir, err)
	}
	return t, nil
}

// children reads a directory. One that the filter leaves out, and in which
// nothing is, isn't there.
func (t *contextTree) children(n *node) ([]*node, error) {
	if n.read {
		return n.kids, nil
	}
	fd, err := openBelow(t.dir, n.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(t.dir, n.name), Err: err}
	}
	f := os.NewFile(uintptr(fd), n.name)
	defer f.Close()
	if n.attrs, err = treetar.Attributes(fd); err != nil {
		return nil, fmt.Errorf("read the build context: %s: %w", n.name, err)
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read the build context: %w", err)
	}
	slices.Sort(names)
	all := make([]node, len(names))
	n.kids = make([]*node, 0, len(names))
	for i, base := range names {
		kid := &all[i]
		kid.name = base
		if n.name != "." {
			kid.name = n.name + "/" + base
		}
		err := unix.Fstatat(fd, base, &kid.stat, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "stat", Path: filepath.Join(t.dir, kid.name), Err: err}
		}
		if keep, err := t.filtered(kid, n); err != nil || !keep {
			if err != nil {
				return nil, err
			}
			continue
		}
		if kid.is(unix.S_IFLNK) {
			buf := make([]byte, unix.PathMax)
			size, err := unix.Readlinkat(fd, base, buf)
			if err != nil {
				return nil, &os.PathError{Op: "readlink", Path: filepath.Join(t.dir, kid.name), Err: err}
			}
			kid.link = string(buf[:size])
		}
		n.kids = append(n.kids, kid)
	}
	n.read = true
	return n.kids, nil
}

func (t *contextTree) filtered(kid, above *node) (keep bool, err error) {
	if t.filter == nil {
		return true, nil
	}
	verdict, below := t.filter(kid.name, kid.is(unix.S_IFDIR), above.below)
	kid.below = below
	switch {
	case verdict == build.In:
		return true, nil
	case verdict == build.Prune || !kid.is(unix.S_IFDIR):
		return false, nil
	}
	kid.out = true
	kids, err := t.children(kid)
	return len(kids) > 0, err
}

// find looks up a path without symlinks; nil: it isn't there.
func (t *contextTree) find(name string) (*node, error) {
	n := t.root
	if name == "." || name == "" {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if !n.is(unix.S_IFDIR) {
			return nil, nil
		}
		kids, err := t.children(n)
		if err != nil {
			return nil, err
		}
		want := path.Join(n.name, part)
		i, found := slices.BinarySearchFunc(kids, want, func(k *node, want string) int { return strings.Compare(k.name, want) })
		if !found {
			return nil, nil
		}
		n = kids[i]
	}
	return n, nil
}

// List names what is in a directory.
func (t *contextTree) List(way string) ([]string, error) {
	n, err := t.find(way)
	if err != nil || n == nil {
		return nil, err
	}
	kids, err := t.children(n)
	names := make([]string, len(kids))
	for i, kid := range kids {
		names[i] = path.Base(kid.name)
	}
	return names, err
}

// maxContextLinks is how many symlinks a path may go through.
const maxContextLinks = 40

// Real follows symlinks inside of the context.
func (t *contextTree) Real(unsafePath string) (string, layers.Kind, error) {
	done, links := ".", 0
	for rest := unsafePath; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			if done == "." {
				return "", layers.Nothing, fmt.Errorf("%s: %w", unsafePath, build.ErrOutside)
			}
			done = path.Dir(done)
			continue
		}
		n, err := t.find(path.Join(done, part))
		if err != nil {
			return "", layers.Nothing, err
		}
		if n == nil {
			return path.Join(done, part, rest), layers.Nothing, nil
		}
		if !n.is(unix.S_IFLNK) {
			done = n.name
			continue
		}
		if links++; links > maxContextLinks {
			return "", layers.Nothing, fmt.Errorf("%s: %w", unsafePath, unix.ELOOP)
		}
		if path.IsAbs(n.link) {
			done = "."
		}
		rest = n.link + "/" + rest
	}
	n, err := t.find(done)
	switch {
	case err != nil:
		return "", layers.Nothing, err
	case n == nil:
		return done, layers.Nothing, nil
	case n.is(unix.S_IFDIR):
		return done, layers.Directory, nil
	}
	return done, layers.OtherFile, nil
}

// selectContext is Select of a context.
func (w *worker) selectContext(ctx context.Context, s *build.Selection) error {
	t, err := openContext(s.Tree.Dir, s.Tree.Filter)
	if err != nil {
		return err
	}
	found := &selected{only: []string{}} // nil would be all
	var exclude *excluder
	if found.items, exclude, err = expand(t, s.Spec); err != nil {
		return err
	}
	only := map[string]bool{}
	var ranges [][2]int // of each item's nodes
	for _, item := range found.items {
		n, err := t.find(item.From)
		if err != nil {
			return err
		}
		found.above(item.From, only)
		for _, dir := range item.Above {
			found.above(dir, only)
			if d, err := t.find(dir); err == nil && d != nil && !only[dir] {
				only[dir] = true
			}
		}
		begin := len(found.nodes)
		if err := t.readAll(ctx, n, exclude.in(item)); err != nil {
			return err
		}
		if err := t.collect(ctx, n, exclude.in(item), found); err != nil {
			return err
		}
		ranges = append(ranges, [2]int{begin, len(found.nodes)})
	}
	for name := range only {
		found.only = append(found.only, name)
	}
	found.only = slices.Grow(found.only, len(found.nodes))
	for _, n := range found.nodes {
		if n.name != "." {
			found.only = append(found.only, n.name)
		}
	}
	slices.Sort(found.only)
	found.only = slices.Compact(found.only)
	found.groups()
	if err := w.hashAll(ctx, t.dir, found.nodes); err != nil {
		return err
	}
	sum := sha256.New()
	for i, item := range found.items {
		fmt.Fprintf(sum, "item %q %v %q %v\n", item.Name, item.Dir, item.Above, s.Spec.Parents)
		for _, dir := range item.dressed(s.Spec) {
			if d, err := t.find(dir); err == nil && d != nil {
				digestDir(sum, d)
			}
		}
		for _, n := range found.nodes[ranges[i][0]:ranges[i][1]] {
			digestNode(sum, n, item.From)
		}
	}
	s.Found, s.Sources = found, len(found.items)
	s.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return nil
}

// groups finds the names of one file, which are one in the copy too.
func (s *selected) groups() {
	type id struct{ dev, ino uint64 }
	firsts := map[id]*node{}
	last := 0
	for _, n := range s.nodes {
		if !n.is(unix.S_IFREG) || n.stat.Nlink < 2 {
			continue
		}
		at := id{n.stat.Dev, n.stat.Ino}
		first := firsts[at]
		if first == nil {
			firsts[at] = n
			continue
		}
		if first.group == 0 && first.name != n.name {
			last++
			first.group = last
		}
		n.group = first.group
	}
}

// above adds the directories that a path is in.
func (s *selected) above(name string, only map[string]bool) {
	for dir := path.Dir(name); dir != "." && dir != "/"; dir = path.Dir(dir) {
		only[dir] = true
	}
}

// readAll reads what is below a directory and isn't skipped, several directories
// at once.
func (t *contextTree) readAll(ctx context.Context, n *node, skip func(string) bool) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var read func(n *node) error
	read = func(n *node) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		kids, err := t.children(n)
		if err != nil {
			return err
		}
		for _, kid := range kids {
			if !kid.is(unix.S_IFDIR) || skip != nil && skip(kid.name) {
				continue
			}
			work := func() error { return read(kid) }
			if !group.TryGo(work) {
				if err := work(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if n.is(unix.S_IFDIR) {
		group.Go(func() error { return read(n) })
	}
	return group.Wait()
}

// collect lists a node and all below it, in the order of names.
func (t *contextTree) collect(ctx context.Context, n *node, skip func(string) bool, found *selected) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if skip != nil && skip(n.name) {
		return nil
	}
	found.nodes = append(found.nodes, n)
	if !n.is(unix.S_IFDIR) {
		return nil
	}
	kids, err := t.children(n)
	if err != nil {
		return err
	}
	for _, kid := range kids {
		if err := t.collect(ctx, kid, skip, found); err != nil {
			return err
		}
	}
	return nil
}

// digestNode adds what of a file counts: its name in the source, its kind and
// mode, and its content. Of the source's own directory only the content does.
func digestNode(sum hash.Hash, n *node, source string) {
	if n.name == source && n.is(unix.S_IFDIR) {
		return
	}
	name := ""
	if n.name != source {
		name = seenFrom(n.name, source)
	}
	line := make([]byte, 0, 256)
	line = strconv.AppendQuote(line, name)
	line = strconv.AppendUint(append(line, ' '), uint64(n.stat.Mode), 8)
	link := n.link
	if n.group > 0 {
		link = "file " + strconv.Itoa(n.group)
	}
	line = strconv.AppendQuote(append(line, ' '), link)
	line = strconv.AppendQuote(append(line, ' '), n.attrs)
	line = append(append(line, n.sum[:]...), '\n')
	sum.Write(line)
}

// digestDir adds what of a directory itself counts where it is made as it is.
func digestDir(sum hash.Hash, n *node) {
	fmt.Fprintf(sum, "dir %q %o %q\n", n.name, n.stat.Mode, n.attrs)
}

// hashAll finds the digests of the files' contents, those that aren't
// remembered side by side.
func (w *worker) hashAll(ctx context.Context, dir string, nodes []*node) error {
	memo := w.memo(dir)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, n := range nodes {
		if !n.is(unix.S_IFREG) || memo.find(n) {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			began := time.Now()
			if err := n.hash(dir); err != nil {
				return err
			}
			memo.add(n, began)
			return nil
		})
	}
	return group.Wait()
}

// hash reads the file.
func (n *node) hash(dir string) error {
	name := filepath.Join(dir, n.name)
	fd, err := openBelow(dir, n.name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return fmt.Errorf("read the build context: %w", &os.PathError{Op: "open", Path: name, Err: err})
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := unix.Fstat(int(f.Fd()), &n.stat); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	sum := sha256.New()
	if _, err := io.CopyBuffer(sum, struct{ io.Reader }{f}, make([]byte, min(n.stat.Size+1, 256<<10))); err != nil {
		return fmt.Errorf("read the build context: %w", err)
	}
	sum.Sum(n.sum[:0])
	attrs, err := treetar.Attributes(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("read the build context: %s: %w", n.name, err)
	}
	if attrs != "" {
		n.sum = sha256.Sum256(append(n.sum[:], attrs...))
	}
	return nil
}
