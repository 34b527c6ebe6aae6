package layers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/lockfile"
)

// Meta is what is known of an unpacked layer, in its meta.json.
type Meta struct {
	Version int    `json:"version"`
	DiffID  string `json:"diffID"`
	// ChainID is there for a layer that is right only on top of the layers it
	// was unpacked on.
	ChainID string `json:"chainID,omitempty"`
	// Made is there for a layer of a build, whose DiffID is "" until it is
	// packed.
	Made *Made     `json:"made,omitempty"`
	IDs  IDs       `json:"ids"`
	Root *RootAttr `json:"root,omitempty"`
	// Opaque says that the layer hides all of those below.
	Opaque bool `json:"opaque,omitempty"`
	// Blob is the digest of the blob that it was unpacked from, From the
	// repository that has it; "" when that isn't known.
	Blob string `json:"blob,omitempty"`
	From string `json:"from,omitempty"`
	// Entries counts those of the tar stream, Bytes the content of its files.
	Entries int64    `json:"entries"`
	Bytes   int64    `json:"bytes"`
	Notes   []string `json:"notes,omitempty"`
}

// metaFile stands beside fs.
const metaFile = "meta.json"

// unpacking is one Unpack.
type unpacking struct {
	store   *Store
	sources []Source
	report  Report
	layers  []*unpacked // one a source, bottom to top
	// proving: layers are looked at, and none is unpacked because it is suspect.
	proving bool
	// again: some are suspect, and are unpacked once more. Then the disk is
	// waited for.
	again bool
}

// unpacked is one layer of an Unpack: found in the store, or staged.
type unpacked struct {
	key     string
	diffHex string
	chain   string // hexadecimal, of this layer and those below
	meta    Meta
	// staging is the directory it is made in, "" when it was in the store.
	staging string
	layer   *Layer // between extraction and Finish
	// twin is an earlier layer of the same diff id that this one is, too.
	twin *unpacked
	// unproven says that it isn't unpacked from its blob, and that nobody has
	// compared that with the diff id yet.
	unproven bool
	// whole: Prove compared it with its blob.
	whole bool
}

// Unpack brings an image's layers, bottom to top, into the store and records
// their chain. Layers that are there are left alone; the others are extracted
// side by side. Each blob is compared with its DiffID, also one that isn't
// needed any more, unless it is known. After an error, or when ctx ends,
// nothing that is half made stays. It runs in a stage. A nil report is told
// nothing.
//
// Two processes may unpack layers in common: one waits for the other.
func (s *Store) Unpack(ctx context.Context, sources []Source, report Report) (Chain, error) {
	ids := make([]string, len(sources))
	for i, src := range sources {
		ids[i] = src.DiffID
	}
	if c, err := s.Ready(ids); err == nil && !s.unproven(c, sources) || err != nil && !errors.Is(err, ErrNotUnpacked) {
		return c, err
	}
	if err := s.makeDirs(); err != nil {
		return Chain{}, err
	}
	unlock, err := s.lockLayers(ctx, ids)
	if err != nil {
		return Chain{}, err
	}
	defer unlock()
	if report == nil {
		report = func(string, int64) {}
	}
	u := &unpacking{store: s, sources: sources, report: report}
	chain, err := u.run(ctx, ids)
	if err != nil {
		u.discard()
		return Chain{}, err
	}
	return chain, nil
}

func (u *unpacking) run(ctx context.Context, ids []string) (Chain, error) {
	if err := u.find(ids); err != nil {
		return Chain{}, err
	}
	marked := u.mark(ctx)
	err := u.extract(ctx)
	if markErr := marked(); err == nil {
		err = markErr
	}
	if err != nil {
		return Chain{}, err
	}
	for i, l := range u.layers {
		if err := u.finish(ctx, i, l); err != nil {
			return Chain{}, fmt.Errorf("layer %d (%s): %w", i+1, l.meta.DiffID, err)
		}
	}
	c := u.chain()
	return c, u.commit(ctx, c)
}

// writeChain writes a chain in the staging directory of its top layer first,
// where a sweep finds what a kill leaves.
func (s *Store) writeChain(top *unpacked, c Chain, d atomicfile.Durability) error {
	dir, err := os.MkdirTemp(filepath.Join(s.dir, ".staging"), top.diffHex+"-")
	if err != nil {
		return fmt.Errorf("write chain: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "chain.json")
	if err := atomicfile.WriteJSON(file, c, 0o600, d); err != nil {
		return err
	}
	if err := os.Rename(file, s.chainPath(top.chain)); err != nil {
		return fmt.Errorf("write chain: %w", err)
	}
	if d == atomicfile.Volatile {
		return nil
	}
	return atomicfile.SyncDir(filepath.Join(s.dir, "chains"))
}

// find looks what of the image is in the store already.
func (u *unpacking) find(ids []string) error {
	firsts := map[string]*unpacked{}
	suspects, err := u.suspects()
	if err != nil {
		return err
	}
	for i, id := range ids {
		chain, err := chainID(ids[:i+1])
		if err != nil {
			return err
		}
		digits, err := digestHex(id)
		if err != nil {
			return err
		}
		l := &unpacked{diffHex: digits, chain: chain, meta: Meta{DiffID: id}, twin: firsts[id]}
		if l.twin == nil {
			firsts[id] = l
		}
		u.layers = append(u.layers, l)
		for _, key := range []string{digits, "chain-" + chain} {
			found, err := u.store.complete(key)
			if errors.Is(err, ErrIncomplete) {
				continue // commit replaces it
			}
			if err == nil && suspects[key] {
				u.again = true
				continue
			}
			if err != nil {
				return err
			}
			l.key, l.meta, l.twin = key, found, nil
			break
		}
		switch {
		case l.key != "":
			l.unproven = u.sources[i].unproven(l.meta.Blob)
		case l.twin != nil:
			first := slices.IndexFunc(ids, func(other string) bool { return other == id })
			l.unproven = u.sources[i].unproven(u.sources[first].Blob)
		}
	}
	return nil
}

// complete is readMeta of a layer with all its parts; ErrIncomplete: it lacks
// one, or isn't there.
func (s *Store) complete(key string) (Meta, error) {
	m, err := s.readMeta(key)
	if err != nil {
		return m, err
	}
	info, err := os.Lstat(s.fsPath(key))
	if err != nil || !info.IsDir() {
		return m, fmt.Errorf("layer %s: %w: it has no directory fs", key, ErrIncomplete)
	}
	return m, nil
}

func (s *Store) readMeta(key string) (Meta, error) {
	var m Meta
	file := filepath.Join(s.layerPath(key), metaFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return m, fmt.Errorf("layer %s: %w: it has no %s", key, ErrIncomplete, metaFile)
	}
	if err != nil {
		return m, fmt.Errorf("read layer: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("layer %s: %w: %s: %w", key, ErrIncomplete, metaFile, err)
	}
	if m.Version != version {
		return m, fmt.Errorf("read layer %s: version %d is not known", file, m.Version)
	}
	return m, s.checkIDs(m.IDs)
}

// extract extracts side by side what is missing.
func (u *unpacking) extract(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, l := range u.layers {
		work := u.extractOne
		switch {
		case l.unproven:
			work = u.prove
		case l.key != "" || l.twin != nil:
			continue
		}
		group.Go(func() error {
			if err := work(ctx, i, l); err != nil {
				return fmt.Errorf("layer %d (%s): %w", i+1, l.meta.DiffID, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (u *unpacking) extractOne(ctx context.Context, i int, l *unpacked) error {
	staging, err := os.MkdirTemp(filepath.Join(u.store.dir, ".staging"), l.diffHex+"-")
	if err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	l.staging = staging
	fsDir := filepath.Join(staging, "fs")
	if err := os.Mkdir(fsDir, 0o700); err != nil {
		return fmt.Errorf("stage: %w", err)
	}
	return u.readBlob(ctx, i, func(stream io.Reader) (err error) {
		l.layer, err = Extract(ctx, stream, fsDir, u.store.ids)
		return err
	})
}

// finish completes a staged layer on top of those below, which are complete.
func (u *unpacking) finish(ctx context.Context, i int, l *unpacked) error {
	if l.key != "" {
		return nil
	}
	if l.twin != nil {
		if !l.twin.chained() {
			l.key, l.meta = l.twin.key, l.twin.meta
			return nil
		}
		// The same bytes need something else of other layers below.
		if err := u.extractOne(ctx, i, l); err != nil {
			return err
		}
	}
	pending := l.layer.Pending()
	below := u.below(i)
	l.layer.belowOwners = ownersBelow(below)
	if err := l.layer.Finish(ctx, below); err != nil {
		return err
	}
	l.key = l.diffHex
	l.meta.Version, l.meta.IDs = version, u.store.ids
	l.meta.Blob, l.meta.From = u.sources[i].Blob, u.sources[i].From
	if pending {
		l.key = "chain-" + l.chain
		l.meta.ChainID = "sha256:" + l.chain
	}
	l.layer.describe(&l.meta)
	if err := l.layer.writeOwners(filepath.Join(l.staging, ownersFile)); err != nil {
		return err
	}
	l.layer = nil
	return atomicfile.WriteJSON(filepath.Join(l.staging, metaFile), l.meta, 0o600, atomicfile.Volatile)
}

func (l *unpacked) chained() bool { return l.meta.ChainID != "" }

// describe puts down what Extract learnt.
func (l *Layer) describe(m *Meta) {
	m.Entries, m.Bytes, m.Notes = l.entries, l.bytes, l.notes.list()
	m.Opaque = l.tree.root.opaque
	if a := l.root; a != nil {
		m.Root = &RootAttr{Mode: a.mode, UID: a.uid, GID: a.gid}
	}
}

// below are the directories under layer i, topmost first, as far as they show.
func (u *unpacking) below(i int) []string {
	var dirs []string
	for i--; i >= 0; i-- {
		l := u.layers[i]
		dirs = append(dirs, u.fsDir(l))
		if l.meta.Opaque {
			break
		}
	}
	return dirs
}

func (u *unpacking) fsDir(l *unpacked) string {
	if l.twin != nil && l.staging == "" {
		l = l.twin
	}
	if l.staging != "" {
		return filepath.Join(l.staging, "fs")
	}
	return u.store.fsPath(l.key)
}

// ownersBelow reads the owners of a layer when they are first asked for.
func ownersBelow(dirs []string) func(layer int, name string) (Owner, bool) {
	read := map[int]map[string]Owner{}
	return func(layer int, name string) (Owner, bool) {
		if read[layer] == nil {
			read[layer] = map[string]Owner{}
			owners, _ := ReadOwners(dirs[layer])
			for _, o := range owners {
				read[layer][o.Path] = o
			}
		}
		o, ok := read[layer][name]
		return o, ok && o.Device == ""
	}
}

// place gives a staged layer its name. What has it by now is damaged, or find
// would have taken it.
func (u *unpacking) place(l *unpacked) error {
	err := os.Rename(l.staging, u.store.layerPath(l.key))
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	old, err := u.store.retire(l.key, l.diffHex)
	if err != nil {
		return err
	}
	if err := os.Rename(l.staging, u.store.layerPath(l.key)); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

func (u *unpacking) chain() Chain {
	c := Chain{Version: version, IDs: u.store.ids}
	for i, l := range u.layers {
		c.Keys = append(c.Keys, l.key)
		if l.meta.Root != nil {
			c.Root = l.meta.Root
		}
		if l.meta.Opaque {
			c.Hidden = i
		}
		c.Notes = append(c.Notes, l.meta.Notes...)
	}
	return c
}

// discard removes what was staged.
func (u *unpacking) discard() {
	for _, l := range u.layers {
		if l.layer != nil {
			l.layer.Close()
		}
		if l.staging != "" {
			_ = os.RemoveAll(l.staging)
		}
	}
}

// lockLayers takes the locks of all the layers, in one order for everyone, so
// that two that have some in common can't wait for each other. It is the owner
// of their staging directories then: any that are there are of the dead.
func (s *Store) lockLayers(ctx context.Context, ids []string) (unlock func(), err error) {
	var names []string
	for _, id := range ids {
		digits, err := digestHex(id)
		if err != nil {
			return nil, err
		}
		names = append(names, lockName(digits))
	}
	slices.Sort(names)
	var held []func()
	unlock = func() {
		for _, u := range held {
			u()
		}
	}
	for _, name := range slices.Compact(names) {
		u, err := lockfile.Lock(ctx, filepath.Join(s.dir, ".locks", name))
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, u)
	}
	return unlock, nil
}

// lockName is the lock of a layer: one of 256, as lock files can never be
// removed.
func lockName(diffHex string) string { return diffHex[:2] }
