package images

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Blobs on their way from a registry:
//
//	.partial/HEX        what there is of a blob; flock(2)ed while somebody adds to it
//	.staging/N/M        a hard link to it, for the pull that needs it
//	blobs/sha256/HEX    the link renamed, at commit; .partial/HEX is then removed
//
// A file in .partial only ever grows. A pull that is killed leaves it, and the
// next one goes on where it ends; that its beginning is right, the digest of
// the whole tells.

const (
	partialDir = ".partial"
	// partialAge is how long what nobody goes on with is kept.
	partialAge = 7 * 24 * time.Hour
	// arrivalStep is how many bytes make an arrival worth telling.
	arrivalStep = 512 << 10
)

// errStale says that what was left in .partial by an earlier pull was wrong.
var errStale = errors.New("an interrupted download was damaged on this disk")

// incoming is a blob that is, or comes, into a staging directory.
type incoming struct {
	desc Descriptor
	path string
}

// newPath is a file's name in the staging directory that nothing has yet.
func (g *staging) newPath() string {
	g.files++
	return filepath.Join(g.dir, fmt.Sprint(g.files))
}

func (s *Store) partialPath(digest string) string {
	return filepath.Join(s.dir, partialDir, hexOf(digest))
}

// fetch has the blob at b.path when it returns.
func (p *pulling) fetch(ctx context.Context, b *incoming, arrivals chan<- Arrival) error {
	tell := func(size int64, whole bool) error {
		select {
		case arrivals <- Arrival{b.desc.Digest, size, whole}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f, err := p.claim(ctx, b)
	if err != nil {
		return p.stage.full(err)
	}
	if f == nil {
		p.say(b, LayerExists)
		return tell(b.desc.Size, true)
	}
	defer f.Close() // and with it the lock
	if err := p.complete(ctx, b, f, tell); err != nil {
		return p.stage.full(err)
	}
	p.say(b, LayerDownloaded)
	return tell(b.desc.Size, true)
}

func (p *pulling) say(b *incoming, state LayerState) {
	if p.opts.Layer != nil {
		p.opts.Layer(b.desc.Digest, state)
	}
}

// claim gives the locked file to add to, or nil where the store has the blob.
// Either way there is a link at b.path.
func (p *pulling) claim(ctx context.Context, b *incoming) (*os.File, error) {
	s := p.store
	for {
		have, err := p.have(ctx, b.desc)
		if err != nil {
			return nil, err
		}
		if have {
			err := p.adopt(b)
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		if err := os.MkdirAll(s.path(partialDir), 0o700); err != nil {
			return nil, fmt.Errorf("make directory for downloads: %w", err)
		}
		name := s.partialPath(b.desc.Digest)
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the directory went with the last file in it
		}
		if errors.Is(err, fs.ErrPermission) && os.Chmod(name, 0o600) == nil {
			continue // whole, and as read-only as blobs are
		}
		if err != nil {
			return nil, fmt.Errorf("download: %w", err)
		}
		if err := waitLock(ctx, f); err != nil {
			_ = f.Close()
			return nil, err
		}
		if !sameFile(f, name) {
			_ = f.Close() // whoever had the lock has committed it, or given up
			continue
		}
		if err := os.Link(name, b.path); err == nil {
			return f, nil
		}
		// No hard links here: no resuming either.
		_ = f.Close()
		return os.OpenFile(b.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
}

// have says whether the store has the blob, and not what a power cut left of it.
func (p *pulling) have(ctx context.Context, d Descriptor) (bool, error) {
	info, err := os.Lstat(p.store.blobPath(d.Digest))
	if err != nil || info.Size() != d.Size {
		return false, nil //nolint:nilerr // it is fetched
	}
	if !p.suspects[d.Digest] {
		return true, nil
	}
	fact, err := p.store.prove(ctx, d)
	return fact == "", err
}

// adopt links a blob of the store into the staging directory, where nobody
// removes it who removes its other images meanwhile.
func (p *pulling) adopt(b *incoming) error {
	return linkOrCopy(p.store.blobPath(b.desc.Digest), b.path)
}

// linkOrCopy is link(2), or a copy where the file system has no hard links.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	return errors.Join(copyAll(out, in), out.Close())
}

// waitLock is flock(2) that ctx can call off.
func waitLock(ctx context.Context, f *os.File) error {
	const longest = 100 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

func sameFile(f *os.File, name string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Lstat(name)
	return err == nil && os.SameFile(ours, theirs)
}

// complete adds what is missing, and compares.
func (p *pulling) complete(ctx context.Context, b *incoming, f *os.File, tell func(int64, bool) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	have := info.Size()
	if have > b.desc.Size {
		_ = os.Remove(p.store.partialPath(b.desc.Digest))
		return fmt.Errorf("%s: %w", b.desc.Digest, errStale)
	}
	add, end := progress(p.opts.Progress, ShortID(b.desc.Digest), b.desc.Size)
	defer end()
	sum := newHashWriter()
	if err := copyAll(sum, watched(ctx, f, add)); err != nil {
		return err
	}
	w := &growing{file: f, hash: sum.hash, size: have, told: have, add: add, tell: tell}
	if err := tell(have, false); err != nil {
		return err
	}
	if have < b.desc.Size {
		if err := p.from.Blob(ctx, b.desc.Digest, b.desc.Size, have, w); err != nil {
			return err
		}
	}
	if got := sum.digest(); got != b.desc.Digest {
		_ = os.Remove(p.store.partialPath(b.desc.Digest))
		if have > 0 {
			return fmt.Errorf("%s: %w", b.desc.Digest, errStale)
		}
		return fmt.Errorf("%w: it has digest %s and should have %s", ErrDigest, got, b.desc.Digest)
	}
	return f.Chmod(0o444)
}

// growing writes and hashes, and tells from time to time how far it is.
type growing struct {
	file *os.File
	hash hash.Hash
	size int64
	told int64
	add  func(int64)
	tell func(size int64, whole bool) error
}

func (g *growing) Write(b []byte) (int, error) {
	n, err := g.file.Write(b)
	_, _ = g.hash.Write(b[:n])
	g.size += int64(n)
	g.add(int64(n))
	if err == nil && g.size-g.told >= arrivalStep {
		g.told = g.size
		err = g.tell(g.size, false)
	}
	return n, err
}

var _ io.Writer = (*growing)(nil)

// dropPartial removes what this pull has in .partial and nobody adds to, and
// what was forgotten there.
func (p *pulling) dropPartial() {
	for _, b := range p.blobs {
		p.store.removePartial(p.store.partialPath(b.desc.Digest))
	}
	p.store.SweepPartial(partialAge)
}

func (s *Store) removePartial(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && sameFile(f, name) {
		_ = os.Remove(name)
	}
}

// SweepPartial removes interrupted downloads that nobody went on with for that
// long; 0: all that no pull is at.
func (s *Store) SweepPartial(older time.Duration) {
	entries, err := os.ReadDir(s.path(partialDir))
	if err != nil {
		return
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && time.Since(info.ModTime()) >= older {
			s.removePartial(filepath.Join(s.path(partialDir), entry.Name()))
		}
	}
	_ = os.Remove(s.path(partialDir)) // as long as it is empty
}
