package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
	"nook/internal/lockfile"
)

// staging is a directory of the store for blobs on their way in:
//
//	stage ──► write… keep… ──► (the caller unpacks) ──► commit: lock, rename,
//	                                                    index, unlock
//	      └──────────────── close, always ───────────────────────┘
//
// Until commit nothing outside it has changed, so a kill leaves only the
// directory, and the next stage sweeps it: nobody holds its lock any more.
type staging struct {
	store  *Store
	dir    string
	unlock func()
	files  int
	kept   map[string]string // digest: path
	// synced are those of the kept that the disk has, or was asked for.
	synced map[string]bool
	// spares are blobs that the store has, in case that it loses them before
	// commit.
	spares map[string]string // digest: path
}

// staged is one file in a staging directory, with what it turned out to be.
type staged struct {
	path   string
	digest string
	size   int64
}

// journalFile lists, inside a staging directory, the digests that are being
// renamed into blobs/. A sweep takes back those that no index refers to.
const journalFile = "commit.json"

func (s *Store) stage(ctx context.Context) (*staging, error) {
	// The lock of the store covers the moment in which a new directory has
	// no lock of its own yet.
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := os.MkdirAll(s.path(stagingDir), 0o700); err != nil {
		return nil, fmt.Errorf("make staging directory: %w", err)
	}
	s.sweep()
	dir, err := os.MkdirTemp(s.path(stagingDir), "")
	if err != nil {
		return nil, fmt.Errorf("make staging directory: %w", err)
	}
	release, err := lockfile.TryLock(filepath.Join(dir, "lock"))
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return &staging{
		store: s, dir: dir, unlock: release,
		kept: make(map[string]string), synced: make(map[string]bool), spares: make(map[string]string),
	}, nil
}

// unstaged takes blobs where they are, on a read-only file system: nobody
// removes them there.
func (s *Store) unstaged() *staging {
	return &staging{store: s, unlock: func() {}, kept: make(map[string]string)}
}

// sweep removes what processes left behind that were killed. It does what it
// can: what it can't remove costs space and nothing else.
func (s *Store) sweep() {
	// Who writes here has the lock of the store, and that have we.
	cut, _ := filepath.Glob(s.path(".*.tmp-*"))
	for _, name := range cut {
		_ = os.Remove(name)
	}
	entries, err := os.ReadDir(s.path(stagingDir))
	if err != nil {
		return
	}
	for _, entry := range entries {
		dir := filepath.Join(s.path(stagingDir), entry.Name())
		unlock, err := lockfile.TryLock(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		var digests []string
		data, err := os.ReadFile(filepath.Join(dir, journalFile))
		if err == nil && json.Unmarshal(data, &digests) == nil {
			s.dropOrphans(digests)
		}
		_ = os.RemoveAll(dir)
		unlock()
	}
}

// close removes the directory, committed or not.
func (g *staging) close() {
	if g.dir != "" {
		_ = os.RemoveAll(g.dir)
	}
	g.unlock()
}

// write stores what r holds under a name of its own.
func (g *staging) write(r io.Reader) (staged, error) { return g.writeTo(g.newPath(), r) }

func (g *staging) writeTo(path string, r io.Reader) (staged, error) {
	file := staged{path: path}
	f, err := os.OpenFile(file.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
	if err != nil {
		return staged{}, g.full(err)
	}
	defer f.Close()
	sum := newHashWriter()
	if err := copyAll(io.MultiWriter(sum, f), r); err != nil {
		return staged{}, g.full(err)
	}
	if err := f.Close(); err != nil {
		return staged{}, g.full(err)
	}
	file.digest, file.size = sum.digest(), sum.size
	return file, nil
}

// copyAll is io.Copy in steps large enough for hashing and writing files.
func copyAll(w io.Writer, r io.Reader) error {
	// The struct hides WriteTo and ReadFrom, which would choose steps of 32 KiB.
	_, err := io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return err
}

// full adds the advice to an error that says that the disk is full.
func (g *staging) full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return hint.Wrap(err, "make room in "+g.store.dir+", for example with nook rmi")
	}
	return err
}

// keep marks a file for commit. A second one with the same digest adds
// nothing.
func (g *staging) keep(file staged) {
	if _, found := g.kept[file.digest]; !found {
		g.kept[file.digest] = file.path
	}
}

// keepBytes stores and keeps a small blob.
func (g *staging) keepBytes(r io.Reader) (staged, error) {
	file, err := g.write(r)
	if err == nil {
		g.keep(file)
	}
	return file, err
}

// spare gives a blob of the store a second name, if it has none in path. That
// it can't have one is no error: the blob is where it was.
func (g *staging) spare(digest, path string) {
	if path == "" {
		path = g.newPath()
		if os.Link(g.store.blobPath(digest), path) != nil {
			return
		}
	}
	g.spares[digest] = path
}

// takeSpares keeps those that the store has lost. The caller holds its lock.
func (g *staging) takeSpares() error {
	for digest, path := range g.spares {
		_, err := os.Lstat(g.store.blobPath(digest))
		if err == nil || g.kept[digest] != "" {
			continue
		}
		own := g.newPath() // the other name is its maker's
		if err := os.Link(path, own); err != nil {
			return err
		}
		g.kept[digest] = own
	}
	return nil
}

// pathOf is where a kept blob lies until commit, or one that was in the store
// before.
func (g *staging) pathOf(digest string) string {
	if path, found := g.kept[digest]; found {
		return path
	}
	return g.store.blobPath(digest)
}

// sync flushes the content of what is kept, in the background: the caller
// unpacks meanwhile. wait reports when the disk has it all.
func (g *staging) sync() (wait func() error) {
	return g.syncSome(func(string) bool { return true })
}

func (g *staging) syncSome(which func(digest string) bool) (wait func() error) {
	group := new(errgroup.Group)
	group.SetLimit(4)
	for digest, path := range g.kept {
		if !which(digest) {
			continue
		}
		g.synced[digest] = true
		group.Go(func() error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := f.Sync(); err != nil {
				return g.full(fmt.Errorf("fsync %s: %w", path, err))
			}
			return nil
		})
	}
	return group.Wait
}

// commit moves what is kept into the store and changes the index, as one
// step for everybody who looks. What wasn't synced before is marked.
func (g *staging) commit(ctx context.Context, change func(*index) error) error {
	unlock, err := g.store.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := g.takeSpares(); err != nil {
		return err
	}
	digests := make([]string, 0, len(g.kept))
	for digest := range g.kept {
		digests = append(digests, digest)
	}
	slices.Sort(digests)
	if err := g.move(ctx, digests, change); err != nil {
		g.store.dropOrphans(digests)
		return g.full(err)
	}
	return nil
}

func (g *staging) move(ctx context.Context, digests []string, change func(*index) error) error {
	idx, err := g.store.readIndex()
	if err != nil {
		return err
	}
	if err := change(idx); err != nil {
		return err
	}
	if err := atomicfile.WriteJSON(filepath.Join(g.dir, journalFile), digests, 0o600, atomicfile.Volatile); err != nil {
		return err
	}
	return g.store.ledger().Place(ctx, g.lazy(), g.store.flush, func() error {
		for _, digest := range digests {
			// One that is there already is replaced by the same content: a
			// damaged blob is mended by loading its image again.
			if err := os.Rename(g.kept[digest], g.store.blobPath(digest)); err != nil {
				return fmt.Errorf("move blob into the store: %w", err)
			}
		}
		if err := atomicfile.SyncDir(g.store.path(blobsDir)); err != nil {
			return err
		}
		return g.store.writeIndex(idx)
	})
}

// dropOrphans removes those of the blobs that the index doesn't refer to. The
// caller holds the lock.
func (s *Store) dropOrphans(digests []string) {
	idx, err := s.readIndex()
	if err != nil {
		return
	}
	used, err := s.reachable(idx)
	if err != nil {
		return // what can't be read may refer to anything
	}
	for _, digest := range digests {
		if checkDigest(digest) == nil && !used[digest] {
			_ = os.Remove(s.blobPath(digest))
		}
	}
}

// reachable is the set of the digests of all blobs that idx leads to.
func (s *Store) reachable(idx *index) (map[string]bool, error) {
	used := make(map[string]bool)
	if err := s.reach(idx.Manifests, used, 0); err != nil {
		return nil, err
	}
	return used, nil
}

func (s *Store) reach(entries []Descriptor, used map[string]bool, depth int) error {
	if depth > maxIndexDepth {
		return fmt.Errorf("image indexes nest deeper than %d", maxIndexDepth)
	}
	for _, entry := range entries {
		if used[entry.Digest] {
			continue
		}
		used[entry.Digest] = true
		data, err := s.readBlob(entry.Digest)
		if err != nil {
			return err
		}
		// Both readings at once: other programs may have put anything here.
		var doc struct {
			Config    Descriptor   `json:"config"`
			Layers    []Descriptor `json:"layers"`
			Manifests []Descriptor `json:"manifests"`
		}
		if err := json.Unmarshal(data, &doc); err != nil {
			return fmt.Errorf("read %s: %w", entry.Digest, err)
		}
		used[doc.Config.Digest] = true
		for _, l := range doc.Layers {
			used[l.Digest] = true
		}
		if err := s.reach(doc.Manifests, used, depth+1); err != nil {
			return err
		}
	}
	return nil
}
