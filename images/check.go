package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"nook/internal/atomicfile"
	"nook/internal/finding"
	"nook/internal/lockfile"
	"nook/internal/unsynced"
)

// CheckOptions say what Check does about what it finds.
type CheckOptions struct {
	// Repair removes what is damaged and what nothing needs: an image with a
	// part that is lost or wrong loses its names.
	Repair bool
	// Quick reads no layers: their sizes are looked at alone.
	Quick    bool
	Progress Progress
	// From, if set, opens a repository that images were pulled from: a repair
	// fetches again what is damaged or lost. It stays the caller's to close.
	From func(repository Reference) (Remote, error)
}

// Checked is what Check went through and found.
type Checked struct {
	Images, Blobs int
	Findings      []finding.Finding
	// Bad are the digests of blobs that are damaged and were not mended.
	Bad map[string]bool
}

// checking is one Check.
type checking struct {
	store *Store
	opts  CheckOptions
	bad   map[string]string // digest: what is wrong with the blob
	// unfetched says why a blob couldn't be fetched again, by digest.
	unfetched map[string]string
	// lost are those of the bad that a power cut may have made so.
	lost  map[string]bool
	found Checked
}

func (c *checking) add(object, fact, mended, advice string) {
	if !c.opts.Repair {
		mended = ""
	} else if mended != "" {
		advice = ""
	}
	c.found.Findings = append(c.found.Findings, finding.Finding{
		Object: object, Fact: fact, Mended: mended, Advice: advice, Garbage: fact == leftover || fact == unreferenced,
	})
}

// What garbage is.
const (
	leftover     = "was left by a command that was killed"
	unreferenced = "nothing refers to it"
)

const repairAdvice = "nook system check --repair"

// Check proves that the store is what it says: the digest and the size of every
// blob, that all an image refers to is there, and that nothing else is. Blobs
// are read without a lock, so that others work meanwhile; what depends on
// several files is looked at under it.
func (s *Store) Check(ctx context.Context, opts CheckOptions) (Checked, error) {
	c := &checking{store: s, opts: opts, bad: make(map[string]string), unfetched: make(map[string]string), lost: make(map[string]bool)}
	if err := c.blobs(ctx); err != nil {
		return c.found, fmt.Errorf("check images: %w", err)
	}
	if opts.Repair && opts.From != nil {
		if err := c.refetch(ctx); err != nil {
			return c.found, fmt.Errorf("check images: fetch again: %w", err)
		}
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return c.found, err
	}
	defer unlock()
	if err := c.rest(); err != nil {
		return c.found, fmt.Errorf("check images: %w", err)
	}
	c.found.Bad = make(map[string]bool)
	for digest := range c.bad {
		c.found.Bad[digest] = true
	}
	return c.found, nil
}

// blobs reads all blobs.
func (c *checking) blobs(ctx context.Context) error {
	entries, err := os.ReadDir(c.store.path(blobsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var total int64
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			total += info.Size()
		}
	}
	add, end := progress(c.opts.Progress, "checking blobs", total)
	defer end()
	var right, all []string
	for _, entry := range entries {
		digest := digestPrefix + entry.Name()
		if checkDigest(digest) != nil {
			continue // told of later
		}
		all = append(all, digest)
		c.found.Blobs++
		if c.opts.Quick && !isSmall(entry) {
			continue
		}
		if fact, err := c.store.hashBlob(ctx, digest, add); err != nil {
			return err
		} else if fact != "" {
			c.bad[digest] = fact
		} else {
			right = append(right, digest)
		}
	}
	if known, err := c.ledger(ctx, all); err != nil || !known {
		return err
	}
	return c.suspects(ctx, right)
}

// ledger looks at what says which blobs the disk may not have, and tells
// whether that is known.
func (c *checking) ledger(ctx context.Context, all []string) (known bool, err error) {
	files, err := c.store.ledger().Garbage()
	if err != nil || len(files) == 0 {
		return err == nil, err
	}
	for _, file := range files {
		c.add("file images/"+unsyncedDir+"/"+file, unsynced.IsGarbage, unsynced.Mended, repairAdvice)
	}
	if !c.opts.Repair {
		return false, nil
	}
	err = c.store.ledger().Mend(ctx, func() ([]string, error) { return all, nil })
	return err == nil, err
}

// suspects tells what of the damage a power cut may have done, and clears the
// others.
func (c *checking) suspects(ctx context.Context, right []string) error {
	suspects, err := c.store.ledger().Suspects()
	if err != nil || len(suspects) == 0 {
		return err
	}
	for digest := range c.bad {
		c.lost[digest] = suspects[digest]
	}
	_ = c.store.ledger().Trust(ctx, right...) // a store that is full or read-only: they are hashed again
	return nil
}

// isSmall says whether a blob may be JSON.
func isSmall(entry fs.DirEntry) bool {
	info, err := entry.Info()
	return err == nil && info.Size() <= smallBlob
}

// smallBlob is above what manifests and configs have, in bytes.
const smallBlob = 64 << 10

// hashBlob says what is wrong with a blob; "": nothing, or it is gone.
func (s *Store) hashBlob(ctx context.Context, digest string, add func(int64)) (string, error) {
	f, err := os.Open(s.blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "can't be read: " + errors.Unwrap(err).Error(), nil // this is what is wrong
	}
	defer f.Close()
	sum := newHashWriter()
	if err := copyAll(sum, watched(ctx, f, add)); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "can't be read: " + err.Error(), nil
	}
	if got := sum.digest(); got != digest {
		return "its content has the digest " + got, nil
	}
	return "", nil
}

// rest is what is done under the lock.
func (c *checking) rest() error {
	s := c.store
	c.layout()
	c.staging()
	idx, err := s.readIndex()
	if err != nil {
		if idx, err = c.rebuild(err); err != nil || idx == nil {
			return err
		}
	}
	kept := c.entries(idx)
	if c.opts.Repair && (len(kept.Manifests) != len(idx.Manifests) || !equalEntries(kept, idx)) {
		if err := s.writeIndex(kept); err != nil {
			return err
		}
	}
	c.found.Images = len(s.images(kept))
	c.unused(idx, kept)
	return nil
}

func equalEntries(a, b *index) bool {
	one, errA := json.Marshal(a.Manifests)
	two, errB := json.Marshal(b.Manifests)
	return errA == nil && errB == nil && string(one) == string(two)
}

func (c *checking) layout() {
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	data, err := readJSONFile(c.store.path(layoutFile))
	if err == nil {
		err = json.Unmarshal(data, &layout)
	}
	if err == nil && layout.Version == layoutVersion {
		return
	}
	layout.Version = layoutVersion
	mended := ""
	if c.opts.Repair && atomicfile.WriteJSON(c.store.path(layoutFile), layout, 0o600, atomicfile.Durable) == nil {
		mended = "written again"
	}
	c.add("file "+layoutFile, "is lost or damaged", mended, repairAdvice)
}

// staging tells of directories whose owners are dead.
func (c *checking) staging() {
	entries, _ := os.ReadDir(c.store.path(stagingDir)) // it may not be there
	for _, entry := range entries {
		unlock, err := lockfile.TryLock(filepath.Join(c.store.path(stagingDir), entry.Name(), "lock"))
		if errors.Is(err, lockfile.ErrHeld) {
			continue
		}
		if err == nil {
			unlock()
		}
		c.add("directory images/"+stagingDir+"/"+entry.Name(), leftover, "removed", repairAdvice)
	}
	cut, _ := filepath.Glob(c.store.path(".*.tmp-*"))
	for _, file := range cut {
		c.add("file images/"+filepath.Base(file), leftover, "removed", repairAdvice)
	}
	if c.opts.Repair {
		c.store.sweep()
	}
}

// rebuild makes an index of the manifests that are there, for one that can't be
// read; nil without Repair.
func (c *checking) rebuild(broken error) (*index, error) {
	c.add("file "+indexFile, "can't be read: "+broken.Error(), "made again of the manifests; names are lost, nook tag gives new ones",
		"nook system check --repair makes it again of the manifests; names are lost")
	if !c.opts.Repair {
		return nil, nil
	}
	s := c.store
	if err := os.Rename(s.path(indexFile), s.path(indexFile+".damaged")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return nil, err
	}
	idx := &index{}
	for _, entry := range entries {
		info, err := entry.Info()
		d := Descriptor{MediaType: mediaTypeManifest, Digest: digestPrefix + entry.Name()}
		if err != nil || info.Size() > maxJSON || checkDigest(d.Digest) != nil || c.bad[d.Digest] != "" {
			continue
		}
		d.Size = info.Size()
		data, err := s.readBlob(d.Digest)
		if err != nil {
			continue
		}
		var m Manifest
		if json.Unmarshal(data, &m) != nil || m.Config.Digest == "" || len(m.Layers) == 0 {
			continue
		}
		if isManifestType(m.MediaType) {
			d.MediaType = m.MediaType
		}
		if described, err := s.describe(d); err == nil {
			idx.Manifests = append(idx.Manifests, described)
		}
	}
	return idx, s.writeIndex(idx)
}

// entries checks each image and gives the index without those that are broken.
func (c *checking) entries(idx *index) *index {
	kept := *idx
	kept.Manifests = nil
	names := make(map[string]bool)
	for _, entry := range slices.Backward(idx.Manifests) {
		name := entryName(entry)
		object := "image " + entryLabel(entry)
		if name != "" && names[name] {
			c.add(object, "its name is listed twice", "the older entry was removed", repairAdvice)
			continue
		}
		names[name] = true
		fact, right, stays := c.entry(entry)
		switch {
		case stays != "":
			c.add(object, fact, "", "it could not be fetched again: "+stays)
			kept.Manifests = append(kept.Manifests, entry)
		case fact == "":
			kept.Manifests = append(kept.Manifests, entry)
		case right != nil:
			c.add(object, fact, "written again", repairAdvice)
			kept.Manifests = append(kept.Manifests, *right)
		default:
			c.add(object, fact, "removed: load or pull it again", "load or pull it again; nook system check --repair removes it")
		}
	}
	slices.Reverse(kept.Manifests)
	return &kept
}

func entryLabel(entry Descriptor) string {
	if name := entryName(entry); name != "" {
		return FamiliarName(name)
	}
	if id := entry.Annotations[annotationConfig]; id != "" {
		return ShortID(id)
	}
	return shorten(entry.Digest)
}

// entry says what is wrong with an image; right is the entry as it should be,
// where the image itself is whole, and stays why it is kept nevertheless.
func (c *checking) entry(entry Descriptor) (fact string, right *Descriptor, stays string) {
	if fact := c.blob("manifest", entry); fact != "" {
		return fact, nil, c.unfetched[entry.Digest]
	}
	if !isManifestType(entry.MediaType) {
		return "", nil, "" // of another program: its own affair
	}
	img := Image{Manifest: entry}
	m, err := c.store.Manifest(img)
	if err != nil {
		return err.Error(), nil, ""
	}
	if fact := c.blob("config", m.Config); fact != "" {
		return fact, nil, c.unfetched[m.Config.Digest]
	}
	img.ID = m.Config.Digest
	cfg, err := c.store.Config(img)
	if err != nil {
		return err.Error(), nil, ""
	}
	if _, err := layersOf(m, cfg, c.store.blobPath); err != nil {
		return err.Error(), nil, ""
	}
	for i, l := range m.Layers {
		if fact := c.blob(fmt.Sprintf("layer %d", i+1), l); fact != "" {
			return fact, nil, c.unfetched[l.Digest]
		}
	}
	fact, right = c.cached(entry, m, cfg)
	return fact, right, ""
}

// cached compares what the index says of an image with the image.
func (c *checking) cached(entry Descriptor, m *Manifest, cfg *ImageConfig) (fact string, right *Descriptor) {
	if entry.Annotations[annotationConfig] == "" {
		return "", nil
	}
	fresh := newEntry(entry, m, cfg)
	for _, key := range []string{annotationConfig, annotationSize, annotationCreated} {
		if entry.Annotations[key] != fresh.Annotations[key] {
			changed := withName(entry, entry.Annotations[annotationRefName])
			for _, key := range []string{annotationConfig, annotationSize, annotationCreated} {
				changed.Annotations[key] = fresh.Annotations[key]
			}
			return "the index says " + key + " " + shorten(entry.Annotations[key]) + ", the image " + fresh.Annotations[key], &changed
		}
	}
	return "", nil
}

// blob says what is wrong with a blob that something refers to.
func (c *checking) blob(what string, d Descriptor) string {
	if err := checkDigest(d.Digest); err != nil {
		return what + ": " + err.Error()
	}
	info, err := os.Lstat(c.store.blobPath(d.Digest))
	if err != nil {
		return what + " " + d.Digest + " is lost"
	}
	switch {
	case c.bad[d.Digest] != "" && c.lost[d.Digest]:
		return what + " " + d.Digest + " is damaged: " + wentDown
	case c.bad[d.Digest] != "":
		return what + " " + d.Digest + " is damaged"
	}
	if info.Size() != d.Size {
		return fmt.Sprintf("%s %s has %d bytes and should have %d", what, d.Digest, info.Size(), d.Size)
	}
	return ""
}

// unused tells of blobs that are damaged, and of those that nothing refers to.
// before is the index as it was found, kept what is right of it.
func (c *checking) unused(before, kept *index) {
	s := c.store
	used := make(map[string]bool)
	if !c.opts.Repair {
		for _, entry := range before.Manifests {
			_ = s.reach([]Descriptor{entry}, used, 0) // as far as it can be read
		}
	}
	for _, entry := range kept.Manifests {
		_ = s.reach([]Descriptor{entry}, used, 0)
	}
	entries, err := os.ReadDir(s.path(blobsDir))
	if err != nil {
		return
	}
	for _, entry := range entries {
		digest := digestPrefix + entry.Name()
		object := "blob " + digest
		var fact string
		switch {
		case checkDigest(digest) != nil:
			object, fact = "file images/"+blobsDir+"/"+entry.Name(), "is no blob"
		case c.bad[digest] != "":
			if fact = c.again(digest); fact == "" {
				continue
			}
		case !used[digest]:
			fact = unreferenced
		default:
			continue
		}
		mended := ""
		if c.opts.Repair && !used[digest] && os.RemoveAll(filepath.Join(s.path(blobsDir), entry.Name())) == nil {
			mended = "removed"
		}
		c.add(object, fact, mended, repairAdvice)
	}
}

// again looks at a blob once more: it may have been replaced since.
func (c *checking) again(digest string) string {
	fact, err := c.store.hashBlob(context.Background(), digest, func(int64) {})
	if err != nil {
		return err.Error()
	}
	return fact
}
