package layers

import (
	"archive/tar"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nook/internal/lockfile"
)

// unpackOf unpacks an image and gives its diff ids and its chain.
func unpackOf(t *testing.T, s *Store, layers ...[]*tar.Header) ([]string, Chain) {
	t.Helper()
	sources, ids := sourcesOf(t, layers...)
	c, err := s.Unpack(t.Context(), sources, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ids, c
}

// collect keeps the images of these diff ids.
func collect(t *testing.T, s *Store, images ...[]string) Collected {
	t.Helper()
	done, err := s.Collect(t.Context(), keeping(s, images...))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func keeping(s *Store, images ...[]string) func() (Keep, error) {
	return func() (Keep, error) {
		keep := Keep{Keys: map[string]bool{}, Chains: map[string]bool{}}
		for _, ids := range images {
			if err := s.KeepChain(keep, ids); err != nil {
				return keep, err
			}
		}
		return keep, nil
	}
}

func wantStored(t *testing.T, s *Store, keys ...string) {
	t.Helper()
	got := stored(t, s.dir)
	slices.Sort(got)
	slices.Sort(keys)
	if !slices.Equal(got, slices.Compact(keys)) {
		t.Errorf("got layers %q, want %q", got, keys)
	}
	nothingStaged(t, s.dir)
}

func TestCollectKeepsWhatIsWanted(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	if done := collect(t, s); done.Keys != nil {
		t.Errorf("of a store that isn't there: %+v", done)
	}
	closed := []*tar.Header{dirEntry("closed", 0), fileEntry("closed/f"), dirEntry("closed/deep", 0), fileEntry("closed/deep/f")}
	oneIDs, one := unpackOf(t, s, baseLayer, closed)
	twoIDs, two := unpackOf(t, s, baseLayer, plainLayer)
	sizes, err := s.Sizes(oneIDs)
	if err != nil || len(sizes) != 2 {
		t.Fatalf("sizes %v, %v", sizes, err)
	}
	done := collect(t, s, twoIDs)
	if !slices.Equal(done.Keys, one.Keys[1:]) || done.Bytes != sizes[1] || done.Bytes != int64(len("closed/fclosed/deep/f")) {
		t.Errorf("collected %+v, want %v with %v", done, one.Keys[1:], sizes)
	}
	wantStored(t, s, two.Keys...)
	if _, err := s.Chain(oneIDs); !errors.Is(err, ErrNotUnpacked) {
		t.Errorf("the removed image: got %v", err)
	}
	if _, err := s.Chain(twoIDs); err != nil {
		t.Errorf("the kept image: got %v", err)
	}
	// A container's layers stay without an image's chain.
	if _, err := s.Collect(t.Context(), func() (Keep, error) {
		return Keep{Keys: map[string]bool{two.Keys[0]: true}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, two.Keys[0])
	if _, err := s.Chain(twoIDs); !errors.Is(err, ErrNotUnpacked) {
		t.Errorf("half of an image: got %v", err)
	}
	refused := errors.New("refused")
	if _, err := s.Collect(t.Context(), func() (Keep, error) { return Keep{}, refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	wantStored(t, s, two.Keys[0])
}

func TestCollectLeavesPinnedLayers(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	ids, c := unpackOf(t, s, baseLayer, plainLayer)
	release, err := s.Pin(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	wantStored(t, s, c.Keys...)
	if _, err := s.Chain(ids); err != nil {
		t.Errorf("the pinned image: %v", err)
	}
	release()
	// One of a process that was killed.
	if err := os.WriteFile(filepath.Join(s.dir, pinsDir, "dead"), []byte(`["`+ids[0]+`"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	wantStored(t, s)
	if left, err := os.ReadDir(filepath.Join(s.dir, pinsDir)); len(left) != 0 || err != nil {
		t.Errorf("pins left: %v, %v", left, err)
	}
}

// TestPinComesBeforeItsLayers: as a load does it.
func TestPinComesBeforeItsLayers(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources, ids := sourcesOf(t, baseLayer)
	release, err := s.Pin(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := s.Unpack(t.Context(), sources, nil); err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	if _, err := s.Chain(ids); err != nil {
		t.Error(err)
	}
}

func TestCollectWaitsForUse(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	_, c := unpackOf(t, s, baseLayer)
	var doneTwice []func()
	for range 2 { // users don't wait for each other
		done, err := s.Use(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		doneTwice = append(doneTwice, done, done)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Collect(ctx, keeping(s)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	wantStored(t, s, c.Keys...)
	for _, done := range doneTwice {
		done()
	}
	collect(t, s)
	wantStored(t, s)
}

// TestCollectLeavesWhatIsBeingUnpacked: its lock is held.
func TestCollectLeavesWhatIsBeingUnpacked(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	ids, c := unpackOf(t, s, baseLayer)
	digits, _ := digestHex(ids[0])
	unlock, err := lockfile.TryLock(filepath.Join(dir, ".locks", lockName(digits)))
	if err != nil {
		t.Fatal(err)
	}
	collect(t, s)
	wantStored(t, s, c.Keys...)
	unlock()
	collect(t, s)
	wantStored(t, s)
}

// While Collect asks what to keep, somebody who pinned nothing unpacks an
// image on a layer that is about to go.
func TestCollectKeepsWhatIsUnpackedMeanwhile(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	_, first := unpackOf(t, s, baseLayer)
	_, second := unpackOf(t, s, baseLayer, plainLayer)
	// The chain is written after the list of chains was gone through, as seen by
	// moveAway.
	if away, err := s.moveAway(first.Keys[0], Meta{}); away != "" || err != nil {
		t.Errorf("moved to %q, %v", away, err)
	}
	wantStored(t, s, second.Keys...)
}

// TestLostPartsAreUnpackedAgain: a chain alone is no image.
func TestLostPartsAreUnpackedAgain(t *testing.T) {
	inStage(t)
	for name, damage := range map[string]func(layer string) error{
		"the layer":          os.RemoveAll,
		"its files":          func(l string) error { return os.RemoveAll(filepath.Join(l, "fs")) },
		"its marker":         func(l string) error { return os.Remove(filepath.Join(l, metaFile)) },
		"half of its marker": func(l string) error { return os.Truncate(filepath.Join(l, metaFile), 10) },
		"its directory":      func(l string) error { return errors.Join(os.RemoveAll(l), os.WriteFile(l, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newStore(t)
			sources, ids := sourcesOf(t, baseLayer, pendingLayer, plainLayer)
			c, err := s.Unpack(t.Context(), sources, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range c.Keys[:2] {
				if err := damage(filepath.Join(dir, key)); err != nil {
					t.Fatal(err)
				}
			}
			_, err = s.Chain(ids)
			if name != "half of its marker" && !errors.Is(err, ErrNotUnpacked) {
				t.Errorf("got %v, want ErrNotUnpacked", err)
			}
			if name == "half of its marker" { // too dear to read at each start
				id, _ := chainID(ids)
				if err := os.Remove(s.chainPath(id)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Unpack(t.Context(), sources, nil); err != nil {
				t.Fatal(err)
			}
			again, err := s.Chain(ids)
			if err != nil || !slices.Equal(again.Keys, c.Keys) {
				t.Errorf("got %v, %v, want %v", again.Keys, err, c.Keys)
			}
			wantStored(t, s, c.Keys...)
			for _, key := range c.Keys {
				if _, err := s.complete(key); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestDamagedChainIsWrittenAgain: it is made of what the layers say.
func TestDamagedChainIsWrittenAgain(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources, ids := sourcesOf(t, baseLayer)
	unpackOf(t, s, baseLayer)
	id, _ := chainID(ids)
	for _, broken := range []string{"", "{", strings.Repeat("x", 100)} {
		if err := os.WriteFile(s.chainPath(id), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Chain(ids); !errors.Is(err, ErrNotUnpacked) {
			t.Errorf("%q: got %v, want ErrNotUnpacked", broken, err)
		}
		if _, err := s.Unpack(t.Context(), sources, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Chain(ids); err != nil {
			t.Error(err)
		}
	}
}
