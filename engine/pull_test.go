package engine

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nook/images"
	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
	"nook/internal/testenv/testregistry"
)

// serve is a registry in memory with busybox, whose layers are change's.
func serve(t *testing.T, change func(*testimage.Image)) (*testregistry.Registry, string) {
	t.Helper()
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	t.Setenv("NOOK_REGISTRIES", filepath.Join(t.TempDir(), "none.conf"))
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&img)
	}
	r := testregistry.New()
	if _, err := r.AddImage("app", "1", img); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, strings.TrimPrefix(server.URL, "http://")
}

// heavy adds layers that no compression makes smaller, n bytes each.
func heavy(count, n int) func(*testimage.Image) {
	return func(img *testimage.Image) {
		for i := range count {
			body := make([]byte, n)
			_, _ = rand.New(rand.NewSource(int64(i))).Read(body)
			name := "srv/" + string(rune('a'+i))
			img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{
				testimage.Dir("srv", 0o755), testimage.File(name, 0o644, string(body)).Owned(0, 0),
			}})
		}
		img.Compression = testimage.Gzip
	}
}

func TestPulledImagesRun(t *testing.T) {
	for _, ids := range []string{"single", "mapped"} {
		t.Run(ids, func(t *testing.T) {
			e := open(t, ids)
			_, host := serve(t, heavy(4, 1<<20))
			got, err := run(t, e, RunOptions{Image: host + "/app:1", Command: []string{"ls", "/srv"}, Remove: true})
			if err != nil || got.out != "a\nb\nc\nd\n" {
				t.Fatalf("%+v, %v", got, err)
			}
			if left := below(t, e, "layers/.staging", "images/.staging", "images/.partial"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// below lists what is in directories of the data root.
func below(t *testing.T, e *Engine, dirs ...string) []string {
	t.Helper()
	var names []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(e.root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, entry := range entries {
			names = append(names, filepath.Join(dir, entry.Name()))
		}
	}
	return names
}

// TestLayersAreUnpackedWhileTheyArrive lets no layer end before the stage has
// unpacked its first megabyte.
func TestLayersAreUnpackedWhileTheyArrive(t *testing.T) {
	e := open(t, "single")
	r, host := serve(t, func(img *testimage.Image) {
		heavy(1, 8<<20)(img)
		l := &img.Layers[len(img.Layers)-1]
		l.Entries = append([]testimage.Entry{testimage.Dir("srv", 0o755), testimage.File("srv/first", 0o644, "first")}, l.Entries[1:]...)
	})
	seen := false
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		data, found := r.Blob("app", req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:])
		if !found || len(data) < 8<<20 {
			return false
		}
		_, _ = w.Write(data[:6<<20])
		w.(http.Flusher).Flush()
		// until is bounded by the end of the request, which the test's ends.
		for req.Context().Err() == nil && !seen {
			found, err := filepath.Glob(filepath.Join(e.root, "layers/.staging/*/fs/srv/first"))
			seen = err == nil && len(found) == 1
		}
		_, _ = w.Write(data[6<<20:])
		return true
	}
	if _, err := e.Pull(t.Context(), host+"/app:1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if !seen {
		t.Error("nothing was unpacked before the layer's end")
	}
}

// TestPullThatIsCalledOffResumes ends a pull in the middle of a layer.
func TestPullThatIsCalledOffResumes(t *testing.T) {
	e := open(t, "single")
	r, host := serve(t, heavy(1, 8<<20))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var cut string
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		data, found := r.Blob("app", req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:])
		if !found || len(data) < 8<<20 {
			return false
		}
		mu.Lock()
		cut = req.URL.Path
		mu.Unlock()
		_, _ = w.Write(data[:6<<20])
		w.(http.Flusher).Flush()
		for req.Context().Err() == nil { // as soon as some of it is on disk
			if files, _ := filepath.Glob(filepath.Join(e.root, "images/.partial/*")); len(files) > 0 {
				for _, f := range files {
					if info, err := os.Stat(f); err == nil && info.Size() > 1<<20 {
						cancel()
					}
				}
			}
		}
		return true
	}
	if _, err := e.Pull(ctx, host+"/app:1", PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("called off: %v", err)
	}
	if left := below(t, e, "layers/.staging", "images/.staging"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	r.Lie = nil
	r.Requests()
	mu.Lock()
	defer mu.Unlock()
	if _, err := e.Pull(t.Context(), host+"/app:1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	ranges := 0
	for _, req := range r.Requests() {
		// Another layer may have been cut off as well.
		if req.Range != "" && req.Path == cut {
			ranges++
		}
	}
	if ranges != 1 {
		t.Errorf("%d range requests for %s, want one", ranges, cut)
	}
}

// TestAnEvilImageLeavesNothing pulls a layer whose blob is right and whose diff
// id isn't.
func TestAnEvilImageLeavesNothing(t *testing.T) {
	e := open(t, "single")
	r, host := serve(t, heavy(2, 1<<20))
	m, _ := r.Manifest("app", "1")
	other, err := testimage.Compress(testimage.Gzip, make([]byte, 1024))
	if err != nil {
		t.Fatal(err)
	}
	var changed images.Manifest
	unmarshal(t, m.Body, &changed)
	last := &changed.Layers[len(changed.Layers)-1]
	last.Digest, last.Size = r.AddBlob("app", other), int64(len(other))
	r.AddManifest("app", "evil", m.Type, marshal(t, changed))
	_, err = e.Pull(t.Context(), host+"/app:evil", PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "has the digest") {
		t.Fatalf("got %v", err)
	}
	if left := below(t, e, "layers/.staging", "images/.staging", "images/.partial", "images/blobs/sha256"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPullPolicies(t *testing.T) {
	e := open(t, "single")
	r, host := serve(t, nil)
	name := host + "/app:1"
	if _, err := run(t, e, RunOptions{Image: name, Pull: PullNever}); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("never: %v", err)
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("never asked %d times", n)
	}
	for _, c := range []struct {
		policy PullPolicy
		asks   bool
	}{{PullMissing, true}, {PullMissing, false}, {"", false}, {PullNever, false}, {PullAlways, true}} {
		got, err := run(t, e, RunOptions{Image: name, Pull: c.policy, Command: []string{"echo", "x"}, Remove: true})
		if err != nil || got.out != "x\n" {
			t.Fatalf("%q: %+v, %v", c.policy, got, err)
		}
		if asked := len(r.Requests()) > 0; asked != c.asks {
			t.Errorf("%q: the registry was asked: %v", c.policy, asked)
		}
	}
}

func unmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
