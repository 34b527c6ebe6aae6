package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/lockfile"
)

// source is a layer in memory.
func source(stream []byte) Source {
	return Source{DiffID: digestOf(stream), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(stream)), nil
	}}
}

func sourcesOf(t testing.TB, layers ...[]*tar.Header) (sources []Source, ids []string) {
	t.Helper()
	for i, entries := range layers {
		stream := layerOf(t, entries...)
		if i%2 == 1 {
			packed := gzipOf(t, stream)
			s := source(packed)
			s.DiffID = digestOf(stream)
			sources = append(sources, s)
		} else {
			sources = append(sources, source(stream))
		}
		ids = append(ids, digestOf(stream))
	}
	return sources, ids
}

func newStore(t testing.TB) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layers")
	return NewStore(dir, Single), dir
}

// nothingStaged looks that no half of anything is left.
func nothingStaged(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, ".staging"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in .staging: %s", e.Name())
	}
}

// stored lists the layers in a store.
func stored(t testing.TB, dir string) []string {
	t.Helper()
	keys, err := NewStore(dir, Single).keys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

var (
	baseLayer    = []*tar.Header{ownedBy(dirEntry("./", 0o711), 1, 2), dirEntry("etc", 0o750), fileEntry("etc/passwd"), dirEntry("tmp", 0o1777)}
	pendingLayer = []*tar.Header{fileEntry("tmp/x"), linkEntry("passwd", "etc/passwd")}
	plainLayer   = []*tar.Header{fileEntry("plain"), deviceEntry("null", 1, 3)}
)

func TestUnpackMakesAChain(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	sources, ids := sourcesOf(t, baseLayer, pendingLayer, plainLayer)
	if _, err := s.Chain(ids); !errors.Is(err, ErrNotUnpacked) {
		t.Fatalf("before: got %v, want ErrNotUnpacked", err)
	}
	var read atomic.Int64
	made, err := s.Unpack(context.Background(), sources, func(_ string, n int64) { read.Add(n) })
	if err != nil {
		t.Fatal(err)
	}
	nothingStaged(t, dir)
	c, err := s.Chain(ids)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(made) != fmt.Sprint(Chain{made.Version, c.IDs, c.Keys, c.Hidden, made.Root, c.Notes}) || *made.Root != *c.Root {
		t.Errorf("Unpack gave %+v, Chain %+v", made, c)
	}
	hex := func(id string) string { return strings.TrimPrefix(id, "sha256:") }
	two, _ := chainID(ids[:2])
	if want := []string{hex(ids[0]), "chain-" + two, hex(ids[2])}; !slices.Equal(c.Keys, want) {
		t.Errorf("got keys %q, want %q", c.Keys, want)
	}
	if want := (RootAttr{0o711, 1, 2}); c.Root == nil || *c.Root != want {
		t.Errorf("got root %+v, want %+v", c.Root, want)
	}
	if len(c.Notes) != 1 || !strings.Contains(c.Notes[0], "device node null") {
		t.Errorf("got notes %q", c.Notes)
	}
	if read.Load() < 3*1024 {
		t.Errorf("told of %d bytes read", read.Load())
	}
	compareLines(t, show(t, mountOverlay(t, s.Dirs(c))), []string{
		`etc/ 0750`, `etc/passwd 0644 "etc/passwd"`, `tmp/ 1777`, `tmp/x 0644 "tmp/x"`, `passwd 0644 "etc/passwd"`, `plain 0644 "plain"`,
	})
}

func TestChainIDIsThatOfTheSpecification(t *testing.T) {
	// Computed by hand: sha256("sha256:aa… sha256:bb…").
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	one, err := chainID([]string{a})
	if err != nil || one != strings.Repeat("a", 64) {
		t.Errorf("one layer: got %s, %v", one, err)
	}
	two, err := chainID([]string{a, b})
	if want := strings.TrimPrefix(digestOf([]byte(a+" "+b)), "sha256:"); err != nil || two != want {
		t.Errorf("two layers: got %s, %v; want %s", two, err, want)
	}
	three, _ := chainID([]string{a, b, a})
	if want := strings.TrimPrefix(digestOf([]byte("sha256:"+two+" "+a)), "sha256:"); three != want {
		t.Errorf("three layers: got %s, want %s", three, want)
	}
}

func TestChainRefusesWhatIsNoDigest(t *testing.T) {
	s, _ := newStore(t)
	for _, ids := range [][]string{nil, {""}, {"sha256:../../x"}, {"sha512:" + strings.Repeat("a", 64)}, {"sha256:" + strings.Repeat("A", 64)}} {
		if _, err := s.Chain(ids); err == nil || errors.Is(err, ErrNotUnpacked) {
			t.Errorf("%q: got %v, want a refusal", ids, err)
		}
	}
}

func TestUnpackUsesLayersThatAreThere(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	first, _ := sourcesOf(t, baseLayer, pendingLayer)
	if _, err := s.Unpack(context.Background(), first, nil); err != nil {
		t.Fatal(err)
	}
	second, ids := sourcesOf(t, baseLayer, pendingLayer, plainLayer)
	for i := range 2 {
		second[i].Open = func() (io.ReadCloser, error) { return nil, errors.New("opened again") }
	}
	c, err := s.Unpack(context.Background(), second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Root == nil || len(stored(t, dir)) != 3 {
		t.Errorf("got %+v and layers %q", c, stored(t, dir))
	}
	second[2].Open = second[0].Open
	if _, err := s.Unpack(context.Background(), second, nil); err != nil {
		t.Errorf("all there: %v", err)
	}
	if _, err := s.Chain(ids); err != nil {
		t.Error(err)
	}
}

func TestUnpackFinishesALayerForEachChain(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	other := []*tar.Header{dirEntry("tmp", 0o700), dirEntry("etc", 0o755), contentEntry("etc/passwd", "other")}
	for _, base := range [][]*tar.Header{baseLayer, other} {
		sources, _ := sourcesOf(t, base, pendingLayer)
		c, err := s.Unpack(context.Background(), sources, nil)
		if err != nil {
			t.Fatal(err)
		}
		lower := s.Dirs(c)
		if top, below := lstat(t, lower[0]+"/tmp").Mode, lstat(t, lower[1]+"/tmp").Mode; top != below {
			t.Errorf("got mode %o over %o", top, below)
		}
	}
	if got := stored(t, dir); len(got) != 4 {
		t.Errorf("got layers %q, want 4", got)
	}
}

func TestUnpackTakesALayerTwiceInAnImage(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	sources, ids := sourcesOf(t, baseLayer, plainLayer, baseLayer, pendingLayer, plainLayer, pendingLayer)
	// sourcesOf packs every other layer; the content is the same.
	c, err := s.Unpack(context.Background(), sources, nil)
	if err != nil {
		t.Fatal(err)
	}
	nothingStaged(t, dir)
	if len(c.Keys) != 6 || c.Keys[0] != c.Keys[2] || c.Keys[1] != c.Keys[4] || c.Keys[3] == c.Keys[5] {
		t.Errorf("got keys %q", c.Keys)
	}
	if _, err := s.Chain(ids); err != nil {
		t.Error(err)
	}
}

func TestUnpackRefusesAWrongDigest(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	sources, ids := sourcesOf(t, baseLayer, plainLayer)
	sources[1].DiffID = "sha256:" + strings.Repeat("e", 64)
	_, err := s.Unpack(context.Background(), sources, nil)
	wantError(t, err, "layer 2", sources[1].DiffID, ids[1])
	if hint.Of(err) == "" {
		t.Error("no hint")
	}
	nothingStaged(t, dir)
	if got := stored(t, dir); len(got) != 0 {
		t.Errorf("got layers %q, want none", got)
	}
}

func TestUnpackLeavesNothingBehind(t *testing.T) {
	inStage(t)
	cut := layerOf(t, plainLayer...)
	for _, tc := range []struct {
		name   string
		second Source
		want   string
	}{
		{"a layer that can't be opened", Source{Path: "/nonexistent/blob"}, "open blob"},
		{"a layer that is cut off", source(cut[:700]), "cut off"},
		{"a hostile layer", source(layerOf(t, fileEntry("../evil"))), "../evil"},
		{"a link to nowhere", source(layerOf(t, linkEntry("l", "nowhere"))), "extract l"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, dir := newStore(t)
			sources, _ := sourcesOf(t, baseLayer)
			if tc.second.DiffID == "" {
				tc.second.DiffID = digestOf(nil)
			}
			_, err := s.Unpack(context.Background(), append(sources, tc.second), nil)
			wantError(t, err, "layer 2", tc.want)
			nothingStaged(t, dir)
		})
	}
}

func TestUnpackSaysThatTheDiskIsFull(t *testing.T) {
	inStage(t)
	dir := filepath.Join(smallTmpfs(t), "layers")
	s := NewStore(dir, Single)
	sources, _ := sourcesOf(t, []*tar.Header{contentEntry("big", strings.Repeat("x", 1<<20))})
	_, err := s.Unpack(context.Background(), sources, nil)
	wantError(t, err, "layer 1", "extract big", "no space left")
	if hint.Of(err) == "" {
		t.Error("no hint")
	}
	nothingStaged(t, dir)
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	ctx, cancel := context.WithCancel(context.Background())
	sources, _ := sourcesOf(t, baseLayer, []*tar.Header{contentEntry("big", strings.Repeat("x", 1<<20))})
	_, err := s.Unpack(ctx, sources, func(string, int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	nothingStaged(t, dir)
}

func TestUnpackAtTheSameTime(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	// In both orders, and with layers that wait for those below.
	images := [][][]*tar.Header{{baseLayer, pendingLayer, plainLayer}, {plainLayer, baseLayer, pendingLayer}, {baseLayer, plainLayer}}
	var wait sync.WaitGroup
	for i := range 12 {
		sources, ids := sourcesOf(t, images[i%len(images)]...)
		wait.Go(func() {
			c, err := NewStore(dir, Single).Unpack(context.Background(), sources, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if again, err := s.Chain(ids); err != nil || !slices.Equal(again.Keys, c.Keys) {
				t.Errorf("got %+v, %v", again, err)
			}
		})
	}
	wait.Wait()
	nothingStaged(t, dir)
	if got := stored(t, dir); len(got) != 4 {
		t.Errorf("got layers %q, want 4", got)
	}
}

func TestOtherIDsAreRefused(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	sources, ids := sourcesOf(t, baseLayer)
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	mapped := NewStore(dir, Mapped)
	_, err := mapped.Chain(ids)
	wantError(t, err, "unpacked for other ids", "single", "mapped")
	if !errors.Is(err, ErrOtherIDs) || !strings.Contains(hint.Of(err), "--ids single") {
		t.Errorf("got hint %q", hint.Of(err))
	}
	// Another image with the same layer.
	sources, _ = sourcesOf(t, baseLayer, plainLayer)
	if _, err := mapped.Unpack(context.Background(), sources, nil); !errors.Is(err, ErrOtherIDs) {
		t.Errorf("got %v, want ErrOtherIDs", err)
	}
	if _, err := NewStore(dir, Root).Chain(ids); !strings.Contains(hint.Of(err), "--root") {
		t.Errorf("as root: got hint %q", hint.Of(err))
	}
}

func TestAnOpaqueRootHidesTheLayersBelow(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources, _ := sourcesOf(t, baseLayer, []*tar.Header{fileEntry("f"), fileEntry(".wh..wh..opq"), fileEntry("tmp/x")}, []*tar.Header{fileEntry("g")})
	c, err := s.Unpack(context.Background(), sources, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Dirs(c)) != 2 || len(c.Keys) != 3 {
		t.Errorf("got %d directories of %d layers, want 2 of 3", len(s.Dirs(c)), len(c.Keys))
	}
	compareLines(t, show(t, mountOverlay(t, s.Dirs(c))), []string{`f 0644 "f"`, `g 0644 "g"`, `tmp/ 0755`, `tmp/x 0644 "tmp/x"`})
}

func TestSweepRemovesWhatTheDeadLeft(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	if err := s.Sweep(); err != nil {
		t.Fatalf("a store that is not there: %v", err)
	}
	sources, _ := sourcesOf(t, baseLayer)
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	dead, alive := filepath.Join(dir, ".staging", strings.Repeat("ab", 32)+"-1"), filepath.Join(dir, ".staging", strings.Repeat("cd", 32)+"-2")
	for _, d := range []string{dead, alive} {
		if err := os.MkdirAll(filepath.Join(d, "fs", "locked", "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(d, "fs", "locked"), 0); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := lockfile.TryLock(filepath.Join(dir, ".locks", lockName(filepath.Base(alive))))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead one's: %v", err)
	}
	if _, err := os.Lstat(alive); err != nil {
		t.Errorf("the living one's: %v", err)
	}
	unlock()
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	nothingStaged(t, dir)
}

func TestUnpackInMappedModeSetsOwners(t *testing.T) {
	if !inMapped(t) {
		return
	}
	dir := filepath.Join(t.TempDir(), "layers")
	s := NewStore(dir, Mapped)
	sources, _ := sourcesOf(t, baseLayer, []*tar.Header{ownedBy(fileEntry("etc/shadow"), 0, 42), linkEntry("p", "etc/passwd")})
	c, err := s.Unpack(context.Background(), sources, nil)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.Dirs(c)[0]+"/etc/shadow", &st); err != nil || st.Gid != 42 {
		t.Errorf("got gid %d, %v; want 42", st.Gid, err)
	}
	collect(t, s)
	if got := stored(t, dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}
