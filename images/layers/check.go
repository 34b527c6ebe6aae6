package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nook/internal/finding"
	"nook/internal/lockfile"
	"nook/internal/unsynced"
)

// Checked is what Check found.
type Checked struct {
	Layers   int
	Findings []finding.Finding
	// Broken are the layers that lack a part or aren't what their name says:
	// they can be discarded and unpacked again. Garbage is there if a collection
	// would remove something.
	Broken  []string
	Garbage bool
}

func (c *Checked) garbage(object, fact string) {
	c.Garbage = true
	c.Findings = append(c.Findings, finding.Finding{Object: object, Fact: fact, Garbage: true, Advice: repairAdvice})
}

func (c *Checked) damage(object, fact string) {
	c.Findings = append(c.Findings, finding.Finding{Object: object, Fact: fact, Advice: repairAdvice})
}

// Wrong notes that a layer's files aren't what its blob makes: see Prove.
func (c *Checked) Wrong(key, fact string) {
	c.Broken = append(c.Broken, key)
	c.damage("layer "+key, fact)
}

const repairAdvice = "nook system check --repair"

// Check goes through the layers and chains: that each has its parts, is what
// its name says, and is needed. wanted is asked as by Collect; an error of it
// only means that nobody knows what is needed. It works outside of a stage, and
// changes nothing but chains that lead nowhere, with repair: they go, to be
// written again when their image is unpacked.
func (s *Store) Check(ctx context.Context, wanted func() (Keep, error), repair bool) (Checked, error) {
	var c Checked
	if _, err := os.Lstat(s.dir); errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err := s.makeDirs(); err != nil {
		return c, err
	}
	unlock, err := lockfile.Lock(ctx, filepath.Join(s.dir, ".locks", useLock))
	if err != nil {
		return c, err
	}
	defer unlock()
	pinned, err := s.pinned()
	if err != nil {
		return c, err
	}
	keep, keepErr := wanted()
	if keepErr == nil {
		keepErr = keep.Unread
	}
	keys, err := s.keys()
	if err != nil {
		return c, err
	}
	suspects, err := s.checkLedger(ctx, &c, repair)
	if err != nil {
		return c, err
	}
	metas := map[string]Meta{}
	for _, key := range keys {
		c.Layers++
		meta, err := s.checkLayer(key)
		switch {
		case errors.Is(err, ErrOtherIDs):
			return c, err
		case err != nil:
			c.Broken = append(c.Broken, key)
			fact := strings.TrimPrefix(err.Error(), "layer "+key+": ")
			if suspects[key] {
				fact += "; " + wentDown
			}
			c.damage("layer "+key, fact)
			continue
		}
		metas[key] = meta
		if keepErr == nil && !keep.Keys[key] && !pinned[meta.DiffID] {
			c.garbage("layer "+key, "no image and no container has it")
		}
	}
	if err := s.checkChains(&c, metas, suspects, repair, func(id string, chain *Chain) bool {
		return keepErr != nil || keep.Chains[id] || s.allPinned(chain, pinned)
	}); err != nil {
		return c, err
	}
	return c, s.checkStaging(&c)
}

// checkLedger gives the suspects, none where nobody knows them.
func (s *Store) checkLedger(ctx context.Context, c *Checked, repair bool) (map[string]bool, error) {
	files, err := s.ledger().Garbage()
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		c.damage("file layers/"+unsyncedDir+"/"+file, unsynced.IsGarbage)
		if repair {
			c.Findings[len(c.Findings)-1].Mended = unsynced.Mended
		}
	}
	if len(files) > 0 {
		if !repair {
			return nil, nil
		}
		if err := s.ledger().Mend(ctx, s.placed); err != nil {
			return nil, err
		}
	}
	return s.ledger().Suspects()
}

// checkLayer says what is wrong with a layer.
func (s *Store) checkLayer(key string) (Meta, error) {
	m, err := s.complete(key)
	if err != nil {
		return m, err
	}
	if IsMade(key) && m.Made != nil {
		return m, nil // its name is its own
	}
	want, err := digestHex(m.DiffID)
	if err != nil {
		return m, fmt.Errorf("its %s: %w", metaFile, err)
	}
	if m.ChainID != "" {
		want = "chain-" + strings.TrimPrefix(m.ChainID, "sha256:")
	}
	if want != key {
		return m, fmt.Errorf("its %s is that of %s", metaFile, want)
	}
	return m, nil
}

func (s *Store) checkChains(c *Checked, metas map[string]Meta, suspects map[string]bool, repair bool, needed func(string, *Chain) bool) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "chains"))
	if err != nil {
		return fmt.Errorf("check chains: %w", err)
	}
	for _, entry := range entries {
		id := strings.TrimSuffix(entry.Name(), ".json")
		chain, err := readChain(s.chainPath(id))
		var fact string
		if err != nil {
			fact = err.Error()
		} else {
			fact = s.chainFact(id, chain, metas)
		}
		if fact == "" {
			if !needed(id, &chain) {
				c.garbage("chain "+id, "no image has it")
			}
			continue
		}
		if suspects[chainName(id)] {
			fact += "; " + wentDown
		}
		c.damage("chain "+printable(id), fact)
		if !repair {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, "chains", entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove chain: %w", err)
		}
		c.Findings[len(c.Findings)-1].Mended = "removed: its image's layers are unpacked again when they are needed"
	}
	return nil
}

// chainFact says what is wrong with a chain.
func (s *Store) chainFact(id string, c Chain, metas map[string]Meta) string {
	var diffIDs []string
	for _, key := range c.Keys {
		meta, ok := metas[key]
		if !ok {
			return "its layer " + printable(key) + " is lost or damaged"
		}
		diffIDs = append(diffIDs, meta.DiffID)
	}
	if got, err := chainID(diffIDs); err != nil || got != id {
		return "its layers are those of another chain"
	}
	return ""
}

// checkStaging tells of directories whose owners are dead.
func (s *Store) checkStaging(c *Checked) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, ".staging"))
	if err != nil {
		return fmt.Errorf("check layers: %w", err)
	}
	for _, e := range entries {
		if len(e.Name()) < len(lockName("00")) {
			continue
		}
		unlock, err := lockfile.TryLock(filepath.Join(s.dir, ".locks", lockName(e.Name())))
		if err != nil {
			continue
		}
		unlock()
		c.garbage("directory layers/.staging/"+e.Name(), "was left by a command that was killed")
	}
	return nil
}

// Missing lists those of the layers that aren't there with all their parts.
func (s *Store) Missing(keys []string) []string {
	var missing []string
	for _, key := range keys {
		if _, err := s.complete(key); err != nil {
			missing = append(missing, key)
		}
	}
	return missing
}
