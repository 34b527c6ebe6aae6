package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nook/images/registry"
	"nook/internal/testenv/testimage"
	"nook/internal/testenv/testregistry"
)

// remote is a registry in memory that a store pulls from.
type remote struct {
	*testregistry.Registry
	client *registry.Client
	host   string
	sleeps []time.Duration
}

func newRemote(t testing.TB) *remote {
	t.Helper()
	r := &remote{Registry: testregistry.New()}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	var mu sync.Mutex
	r.client = registry.New(registry.Options{Sleep: func(ctx context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		r.sleeps = append(r.sleeps, d)
		return ctx.Err()
	}})
	t.Cleanup(r.client.Close)
	return r
}

// image adds one and returns its manifest's digest.
func (r *remote) image(t testing.TB, repo, tag string, img testimage.Image) string {
	t.Helper()
	digest, err := r.AddImage(repo, tag, img)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func (r *remote) ref(t testing.TB, name string) Reference {
	t.Helper()
	ref, err := ParseReference(r.host + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func (r *remote) pull(t testing.TB, s *Store, name string, opts PullOptions) (Pulled, error) {
	t.Helper()
	ref := r.ref(t, name)
	repo, err := r.client.Repository(ref.Registry, ref.Path)
	if err != nil {
		t.Fatal(err)
	}
	return s.Pull(t.Context(), repo, ref, opts)
}

func (r *remote) mustPull(t testing.TB, s *Store, name string) Pulled {
	t.Helper()
	pulled, err := r.pull(t, s, name, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pulled
}

// noise is a layer of n bytes that no compression makes smaller.
func noise(seed int64, n int) testimage.Layer {
	body := make([]byte, n)
	_, _ = rand.New(rand.NewSource(seed)).Read(body)
	return testimage.Layer{Entries: []testimage.Entry{testimage.File("noise", 0o644, string(body))}}
}

func TestPullByTag(t *testing.T) {
	for _, compression := range []string{testimage.Plain, testimage.Gzip, testimage.Zstd} {
		r, s := newRemote(t), newStore(t)
		img := small()
		img.Compression = compression
		digest := r.image(t, "team/app", "1", img)
		pulled := r.mustPull(t, s, "team/app:1")
		if pulled.Digest != digest || !pulled.Updated {
			t.Errorf("%q: pulled %+v, want a new %s", compression, pulled, digest)
		}
		got, err := s.Resolve(r.host + "/team/app:1")
		if err != nil || got.Manifest.Digest != digest {
			t.Errorf("%q: resolve gives %v, %v", compression, got, err)
		}
		if _, err := s.Resolve(r.host + "/team/app@" + digest); err != nil {
			t.Errorf("%q: resolve by digest: %v", compression, err)
		}
		layers, err := s.Layers(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			data, err := os.ReadFile(l.BlobPath)
			if err != nil || digestOf(data) != l.Digest {
				t.Errorf("%q: blob %s: %v", compression, l.Digest, err)
			}
		}
		// Four blobs, the index, and the layout's file.
		if got := files(t, s); len(got) != 6 {
			t.Errorf("%q: the store holds %q", compression, got)
		}
	}
}

func TestPullByDigestOfAnIndex(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	own, other := one("own:1", "own"), one("other:1", "other")
	other.Architecture = "s390x"
	ownDigest, otherDigest := r.image(t, "app", "", own), r.image(t, "app", "", other)
	index := r.AddIndex("app", "multi", testregistry.Entry{Digest: otherDigest, OS: "linux", Arch: "s390x"},
		testregistry.Entry{Digest: ownDigest, OS: "linux", Arch: runtime.GOARCH})
	pulled := r.mustPull(t, s, "app@"+index)
	if pulled.Digest != index || pulled.Image.Manifest.Digest != ownDigest {
		t.Errorf("pulled %s as %s, want %s of the index %s", pulled.Image.Manifest.Digest, pulled.Digest, ownDigest, index)
	}
	if got, err := s.Resolve(r.host + "/app@" + index); err != nil || got.Manifest.Digest != ownDigest {
		t.Errorf("resolve by the index's digest: %v, %v", got, err)
	}
	// By tag it gets a name; the other platform is another image.
	r.mustPull(t, s, "app:multi")
	pulled, err := r.pull(t, s, "app:multi", PullOptions{Platform: "linux/s390x"})
	if err != nil || pulled.Image.Manifest.Digest != otherDigest || !pulled.Updated {
		t.Errorf("platform s390x: %+v, %v", pulled, err)
	}
	if _, err = r.pull(t, s, "app:multi", PullOptions{Platform: "linux/ppc64le"}); !errors.Is(err, ErrPlatform) {
		t.Errorf("platform ppc64le: %v", err)
	}
	if got := list(t, s); len(got) != 2 {
		t.Errorf("%d images, want 2: %+v", len(got), got)
	}
}

func TestPullFetchesNothingTwice(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	base := small()
	r.image(t, "base", "1", base)
	app := base
	app.Layers = append(slices.Clone(base.Layers), testimage.Layer{Entries: []testimage.Entry{testimage.File("app", 0o755, "app")}})
	r.image(t, "app", "1", app)
	r.mustPull(t, s, "base:1")
	if n := testregistry.Count(r.Requests(), "GET /v2/base/blobs/"); n != 3 {
		t.Errorf("%d blobs fetched, want 2 layers and a config", n)
	}
	r.mustPull(t, s, "app:1")
	if n := testregistry.Count(r.Requests(), "GET /v2/app/blobs/"); n != 2 {
		t.Errorf("%d blobs fetched for the second image, want a layer and a config", n)
	}
	if pulled := r.mustPull(t, s, "app:1"); pulled.Updated {
		t.Error("a second pull of the same image is said to be news")
	}
	if n := testregistry.Count(r.Requests(), "GET /v2/app/blobs/"); n != 0 {
		t.Errorf("%d blobs fetched for an image that is there", n)
	}
}

// TestPullUnpacksWhileBytesArrive holds the registry back in the middle of a
// layer until the unpacker has seen its beginning.
func TestPullUnpacksWhileBytesArrive(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	img := testimage.Image{Name: "big:1", Layers: []testimage.Layer{noise(1, 3<<20)}}
	r.image(t, "big", "1", img)
	seen := make(chan struct{})
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		data, found := r.Blob("big", req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:])
		if !found || len(data) < 1<<20 {
			return false
		}
		w.Header().Set("Content-Length", itoa(len(data)))
		_, _ = w.Write(data[:2<<20])
		w.(http.Flusher).Flush()
		<-seen
		_, _ = w.Write(data[2<<20:])
		return true
	}
	var last Arrival
	unpack := func(_ context.Context, _ Image, layers []Layer, arrivals <-chan Arrival) error {
		for a := range arrivals {
			info, err := os.Stat(layers[0].BlobPath)
			if err != nil || info.Size() < a.Size {
				t.Errorf("told of %d bytes, there are %v (%v)", a.Size, info, err)
			}
			if a.Size >= 1<<20 && last.Size < 1<<20 {
				close(seen)
			}
			last = a
		}
		return nil
	}
	pulled, err := r.pull(t, s, "big:1", PullOptions{Unpack: unpack})
	if err != nil {
		t.Fatal(err)
	}
	if !last.Whole || last.Size != pulled.Image.Size {
		t.Errorf("the last arrival is %+v, want all %d bytes", last, pulled.Image.Size)
	}
}

// TestPullResumes breaks the connection in the middle of each layer, and then
// the whole pull.
func TestPullResumes(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "big", "1", testimage.Image{Name: "big:1", Layers: []testimage.Layer{noise(1, 3<<20), noise(2, 3<<20)}})
	var mu sync.Mutex
	broken := map[string]bool{}
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		digest := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
		data, found := r.Blob("big", digest)
		mu.Lock()
		defer mu.Unlock()
		if !found || len(data) < 1<<20 || broken[digest] {
			return false
		}
		broken[digest] = true
		w.Header().Set("Content-Length", itoa(len(data)))
		_, _ = w.Write(data[:2<<20])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	r.mustPull(t, s, "big:1")
	requests := r.Requests()
	ranges := 0
	for _, req := range requests {
		if strings.HasPrefix(req.Range, "bytes=") {
			ranges++
		}
	}
	if ranges != 2 || len(r.sleeps) != 2 {
		t.Errorf("%d range requests and %d pauses, want 2 each: %v", ranges, len(r.sleeps), requests)
	}
}

func TestPullResumesAfterAnInterruption(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "big", "1", testimage.Image{Name: "big:1", Layers: []testimage.Layer{noise(1, 3<<20)}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	half := true
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		data, found := r.Blob("big", req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:])
		if !found || len(data) < 1<<20 || !half {
			return false
		}
		w.Header().Set("Content-Length", itoa(len(data)))
		_, _ = w.Write(data[:2<<20])
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		return true
	}
	ref := r.ref(t, "big:1")
	repo, err := r.client.Repository(ref.Registry, ref.Path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(ctx, repo, ref, PullOptions{Unpack: func(_ context.Context, _ Image, _ []Layer, arrivals <-chan Arrival) error {
		for a := range arrivals {
			if a.Size >= 1<<20 {
				cancel()
			}
		}
		return ctx.Err()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	if left, _ := os.ReadDir(s.path(stagingDir)); len(left) > 0 {
		t.Errorf("staging directory left: %v", left)
	}
	half = false
	r.Requests()
	r.mustPull(t, s, "big:1")
	if n := testregistry.Count(r.Requests(), "GET"); n != 3 {
		t.Errorf("%d requests, want manifest, config and the rest of the layer", n)
	}
	for _, name := range files(t, s) {
		if strings.HasPrefix(name, partialDir) {
			t.Errorf("%s is left after a whole pull", name)
		}
	}
}

// TestPullMendsADamagedInterruption: what an earlier pull left is not what the
// registry has.
func TestPullMendsADamagedInterruption(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "big", "1", testimage.Image{Name: "big:1", Layers: []testimage.Layer{noise(1, 3<<20)}})
	var m Manifest
	found, _ := r.Manifest("big", "1")
	mustUnmarshal(t, found.Body, &m)
	for _, size := range []int{1000, int(m.Layers[0].Size), int(m.Layers[0].Size) + 1} {
		if err := os.MkdirAll(s.path(partialDir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.partialPath(m.Layers[0].Digest), bytes.Repeat([]byte("x"), size), 0o600); err != nil {
			t.Fatal(err)
		}
		pulled := r.mustPull(t, s, "big:1")
		if _, err := s.Remove(t.Context(), pulled.Image.ID, RemoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wantEmpty(t, s)
}

// TestTwoPullsFetchOnce pulls the same image into one store many times at once.
func TestTwoPullsFetchOnce(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "big", "1", testimage.Image{Name: "big:1", Layers: []testimage.Layer{noise(1, 1<<20), noise(2, 1<<20), noise(3, 1<<20), noise(4, 1<<20)}})
	const pulls = 6
	var group sync.WaitGroup
	for range pulls {
		group.Go(func() {
			if _, err := r.pull(t, s, "big:1", PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var m Manifest
	found, _ := r.Manifest("big", "1")
	mustUnmarshal(t, found.Body, &m)
	requests := r.Requests()
	for _, l := range m.Layers {
		if n := testregistry.Count(requests, "GET /v2/big/blobs/"+l.Digest); n != 1 {
			t.Errorf("layer %s was fetched %d times by %d pulls", l.Digest, n, pulls)
		}
	}
	if got := files(t, s); len(got) != 8 {
		t.Errorf("the store holds %q", got)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func mustUnmarshal(t testing.TB, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}
