package layers

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/lockfile"
)

// blobsOf makes sources that say which blobs they are.
func blobsOf(t testing.TB, layers ...[]*tar.Header) []Source {
	t.Helper()
	sources, _ := sourcesOf(t, layers...)
	for i := range sources {
		blob, err := sources[i].Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(blob)
		if err != nil {
			t.Fatal(err)
		}
		sources[i].Blob, sources[i].From = digestOf(data), "registry.test/app"
	}
	return sources
}

func notOpened(s *Source) {
	s.Open = func() (io.ReadCloser, error) { return nil, errors.New("opened again") }
}

// TestUnpackProvesBlobsOfLayersThatAreThere: a blob that claims the diff id of an
// unpacked layer is looked at, once.
func TestUnpackProvesBlobsOfLayersThatAreThere(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	first := blobsOf(t, baseLayer, plainLayer)
	if _, err := s.Unpack(context.Background(), first, nil); err != nil {
		t.Fatal(err)
	}
	if meta, err := s.readMeta(strings.TrimPrefix(first[1].DiffID, "sha256:")); err != nil || meta.Blob != first[1].Blob || meta.From != "registry.test/app" {
		t.Errorf("the layer remembers %+v, %v", meta, err)
	}
	same := blobsOf(t, baseLayer, plainLayer)
	notOpened(&same[0])
	notOpened(&same[1])
	if _, err := s.Unpack(context.Background(), same, nil); err != nil || !s.Unpacked(same) {
		t.Errorf("the same blobs: %v", err)
	}
	// Another packing of the same layer, and one that only says so.
	stream := layerOf(t, plainLayer...)
	good := blobsOf(t, baseLayer, plainLayer)
	good[1] = source(stream)
	good[1].Blob = good[1].DiffID
	if s.Unpacked(good) {
		t.Error("another blob counts as seen")
	}
	if _, err := s.Unpack(context.Background(), good, nil); err != nil {
		t.Errorf("another packing: %v", err)
	}
	for name, data := range map[string][]byte{
		"another layer": layerOf(t, pendingLayer...), "garbage": []byte("garbage"), "half of it": gzipOf(t, stream)[:40],
	} {
		lie := blobsOf(t, baseLayer, plainLayer)
		lie[1] = source(data)
		lie[1].Blob, lie[1].DiffID = lie[1].DiffID, first[1].DiffID
		_, err := s.Unpack(context.Background(), lie, nil)
		wantError(t, err, "layer 2 ("+first[1].DiffID+")")
		lie[1].Known = true
		if _, err := s.Unpack(context.Background(), lie, nil); err != nil {
			t.Errorf("%s, known: %v", name, err)
		}
	}
	// In one image: the second of two blobs for one diff id.
	lone := blobsOf(t, []*tar.Header{fileEntry("lone")}, []*tar.Header{fileEntry("lone")})
	lone[1] = source([]byte("garbage"))
	lone[1].Blob, lone[1].DiffID = lone[1].DiffID, lone[0].DiffID
	_, err := s.Unpack(context.Background(), lone, nil)
	wantError(t, err, "layer 2 ("+lone[0].DiffID+")")
	nothingStaged(t, dir)
}

// TestProveFindsWhatChanged: whatever changes in an unpacked layer is told, and
// nothing else is.
func TestProveFindsWhatChanged(t *testing.T) {
	inStage(t)
	xattrs := []*tar.Header{
		dirEntry("d", 0o755), withXattr(fileEntry("d/x"), "user.note", "1"), fileEntry("d/f"), linkEntry("d/h", "d/f"),
		symlinkEntry("d/s", "f"), fileEntry("gone"), ownedBy(fileEntry("o"), 0, 0), fileEntry(".wh.plain"),
		fileEntry("tmp/.wh..wh..opq"), fileEntry("tmp/y"),
	}
	remade := func(name string, again func(string) error) error { return errors.Join(os.Remove(name), again(name)) }
	keepTime := func(name string, change func() error) error {
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		return errors.Join(change(), os.Chtimes(name, info.ModTime(), info.ModTime()))
	}
	for name, tc := range map[string]struct {
		damage func(fs string) error
		want   string // "": nothing
	}{
		"nothing": {func(string) error { return nil }, ""},
		"content": {func(fs string) error {
			return keepTime(fs+"/d/f", func() error { return os.WriteFile(fs+"/d/f", []byte("d/F"), 0o644) })
		}, "d/f has another content"},
		"length":  {func(fs string) error { return keepTime(fs+"/d/f", func() error { return os.Truncate(fs+"/d/f", 1) }) }, "d/f has 1 bytes and should have 3"},
		"time":    {func(fs string) error { return os.Chtimes(fs+"/d/x", time.Unix(1, 0), time.Unix(1, 0)) }, "d/x has another time"},
		"mode":    {func(fs string) error { return os.Chmod(fs+"/d/x", 0o755) }, "d/x has mode 0755 and should have 0644"},
		"a mode":  {func(fs string) error { return os.Chmod(fs+"/d", 0o700) }, "d has mode 0700"},
		"a loss":  {func(fs string) error { return os.Remove(fs + "/gone") }, "gone is lost"},
		"more":    {func(fs string) error { return os.WriteFile(fs+"/d/new", nil, 0o644) }, "d/new is not in its blob"},
		"kind":    {func(fs string) error { return remade(fs+"/gone", func(n string) error { return os.Mkdir(n, 0o755) }) }, "gone is of another kind"},
		"link":    {func(fs string) error { return remade(fs+"/d/s", func(n string) error { return os.Symlink("/etc", n) }) }, "d/s"},
		"names":   {func(fs string) error { return os.Link(fs+"/gone", fs+"/../other") }, "gone has 2 names and should have 1"},
		"xattr":   {func(fs string) error { return unix.Setxattr(fs+"/d/x", "user.note", []byte("2"), 0) }, "d/x has not the attribute user.note"},
		"opaque":  {func(fs string) error { return unix.Setxattr(fs+"/d", opaqueXattr, []byte("y"), 0) }, "d has an attribute " + opaqueXattr},
		"opaque2": {func(fs string) error { return unix.Removexattr(fs+"/tmp", opaqueXattr) }, "tmp has not the attribute " + opaqueXattr},
		"hidden":  {func(fs string) error { return os.Remove(fs + "/plain") }, "plain is lost"},
		"owners":  {func(fs string) error { return os.WriteFile(fs+"/../owners", []byte("{}"), 0o600) }, "its file owners"},
		"meta": {func(fs string) error {
			data, err := os.ReadFile(fs + "/../meta.json")
			return errors.Join(err, os.WriteFile(fs+"/../meta.json", []byte(strings.Replace(string(data), `"entries"`, `"opaque":true,"entries"`, 1)), 0o600))
		}, "its meta.json is not that of its blob"},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newStore(t)
			sources := blobsOf(t, baseLayer, plainLayer, xattrs, pendingLayer)
			c, err := s.Unpack(context.Background(), sources, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(s.fsPath(c.Keys[2])); err != nil {
				t.Fatal(err)
			}
			wrong, err := s.Prove(context.Background(), sources, nil)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case tc.want == "" && len(wrong) > 0:
				t.Errorf("found %+v", wrong)
			case tc.want != "" && (len(wrong) != 1 || wrong[0].Key != c.Keys[2] || wrong[0].Layer != 2 || !strings.Contains(wrong[0].Fact, tc.want)):
				t.Errorf("found %+v, want %q of %s", wrong, tc.want, c.Keys[2])
			}
			nothingStaged(t, dir)
			sources[2].Known = true
			if name == "meta" {
				return // the last needs it
			}
			if wrong, err := s.Prove(context.Background(), sources, nil); err != nil || len(wrong) > 0 {
				t.Errorf("of the others: %+v, %v", wrong, err)
			}
		})
	}
}

func TestProveFindsBlobsThatAreNotWhatTheImageSays(t *testing.T) {
	inStage(t)
	s, dir := newStore(t)
	sources := blobsOf(t, baseLayer, plainLayer, []*tar.Header{fileEntry("never unpacked")})
	if _, err := s.Unpack(context.Background(), sources[:2], nil); err != nil {
		t.Fatal(err)
	}
	if wrong, err := s.Prove(context.Background(), sources, nil); err != nil || len(wrong) > 0 {
		t.Fatalf("as it should be: %+v, %v", wrong, err)
	}
	for i := range sources {
		lie := append([]Source(nil), sources...)
		lie[i] = source(layerOf(t, fileEntry("another")))
		lie[i].DiffID = sources[i].DiffID
		wrong, err := s.Prove(context.Background(), lie, nil)
		if err != nil || len(wrong) != 1 || wrong[0].Layer != i || wrong[0].Key != "" || !strings.Contains(wrong[0].Fact, sources[i].DiffID) {
			t.Errorf("layer %d: %+v, %v", i, wrong, err)
		}
	}
	nothingStaged(t, dir)
	// Who is at the layer is waited for, and an end of patience is an error.
	unlock, err := lockfile.TryLock(filepath.Join(dir, ".locks", lockName(strings.TrimPrefix(sources[0].DiffID, "sha256:"))))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Prove(ctx, sources, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// TestProveOnAFullDisk: that is no fault of the layer's, and leaves nothing.
func TestProveOnAFullDisk(t *testing.T) {
	inStage(t)
	dir := filepath.Join(smallTmpfs(t), "layers")
	s := NewStore(dir, Single)
	sources := blobsOf(t, []*tar.Header{contentEntry("big", strings.Repeat("x", 100<<10))})
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	wrong, err := s.Prove(context.Background(), sources, nil)
	if !errors.Is(err, unix.ENOSPC) || len(wrong) > 0 || hint.Of(err) == "" {
		t.Errorf("found %+v, %v (%s)", wrong, err, hint.Of(err))
	}
	nothingStaged(t, dir)
}

// What somebody removes meanwhile is nobody's damage.
func TestProveOfWhatIsGone(t *testing.T) {
	inStage(t)
	s, _ := newStore(t)
	sources := blobsOf(t, baseLayer, plainLayer)
	if _, err := s.Unpack(context.Background(), sources, nil); err != nil {
		t.Fatal(err)
	}
	sources[0].Open, sources[0].Path = nil, filepath.Join(t.TempDir(), "gone")
	if wrong, err := s.Prove(context.Background(), sources, nil); err != nil || len(wrong) > 0 {
		t.Errorf("found %+v, %v", wrong, err)
	}
}
