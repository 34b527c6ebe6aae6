package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nook/build"
	"nook/images/registry"
	"nook/internal/hint"
	"nook/internal/testenv/testregistry"
)

// A registry that refuses the cache fails the build in one line; the image is
// there.
func TestRefusedExportOfACache(t *testing.T) {
	for name, tc := range map[string]struct {
		method, path string
		code         int
		want         string
		denied       bool
	}{
		"read-only":          {http.MethodPost, "/blobs/uploads/", http.StatusForbidden, "403 Forbidden", true},
		"not allowed":        {http.MethodPost, "/blobs/uploads/", http.StatusMethodNotAllowed, "405 Method Not Allowed", false},
		"expired midway":     {http.MethodPatch, "/blobs/uploads/", http.StatusUnauthorized, "401 Unauthorized", true},
		"refused at the end": {http.MethodPut, "/blobs/uploads/", http.StatusBadRequest, "400 Bad Request", false},
		"unknown manifest":   {http.MethodPut, "/manifests/", http.StatusBadRequest, "400 Bad Request", false},
	} {
		t.Run(name, func(t *testing.T) {
			r, host := serve(t, nil)
			r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
				if req.Method != tc.method || !strings.Contains(req.URL.Path, tc.path) {
					return false
				}
				testregistry.Fail(w, tc.code, "X", "not\nhere")
				return true
			}
			e := loaded(t, "single", nil)
			ref := host + "/cache:1"
			dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo made >/made"})
			_, err := buildDockerfile(t, e, dir, func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: ref}} })
			if err == nil {
				t.Fatal("it succeeds")
			}
			text := err.Error()
			if !strings.HasPrefix(text, "export the cache to "+ref+": ") || !strings.Contains(text, tc.want) || strings.Contains(text, "\n") {
				t.Errorf("it says %q", text)
			}
			if tc.denied != errors.Is(err, registry.ErrDenied) || tc.denied && !strings.Contains(hint.Of(err), "nook login") {
				t.Errorf("denied: %v, hint %q", errors.Is(err, registry.ErrDenied), hint.Of(err))
			}
			if got := sh(t, e, "cat /made", func(o *RunOptions) { o.Image = "made" }); got != "made" {
				t.Errorf("the image has %q", got)
			}
			if _, found := r.Manifest("cache", "1"); found {
				t.Error("a manifest is there")
			}
		})
	}
}

// A registry that doesn't answer holds nobody up who wants to go.
func TestHangingRegistryOfACache(t *testing.T) {
	r, ref, dir := cacheOf(t)
	m, doc := documents(t, r)
	// A request of a build that went may come to the registry after it.
	var lie atomic.Pointer[func(req *http.Request) bool]
	r.Lie = func(_ http.ResponseWriter, req *http.Request) bool {
		f := lie.Load()
		return f != nil && (*f)(req)
	}
	for name, tc := range map[string]struct{ method, path string }{ // the name is a repository too
		"import-manifest": {http.MethodGet, "/manifests/1"},
		"import-list":     {http.MethodGet, "/cache/blobs/" + m.Config.Digest},
		"import-layer":    {http.MethodGet, "/cache/blobs/" + doc.Layers[1].Blob.Digest},
		"export-look":     {http.MethodHead, "/EXPORT/blobs/"},
		"export-begin":    {http.MethodPost, "/EXPORT/blobs/uploads/"},
		"export-layer":    {http.MethodPatch, "/EXPORT/blobs/uploads/"},
		"export-end":      {http.MethodPut, "/EXPORT/blobs/uploads/"},
		"export-manifest": {http.MethodPut, "/EXPORT/manifests/1"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			enough := errors.New("the person has gone")
			var once sync.Once
			hang := func(req *http.Request) bool {
				if req.Method != tc.method || !strings.Contains(req.URL.Path, strings.Replace(tc.path, "EXPORT", name, 1)) {
					return false
				}
				_, _ = io.Copy(io.Discard, req.Body) // the end of a connection is seen behind it
				once.Do(func() { cancel(enough) })
				<-req.Context().Done()
				return true
			}
			lie.Store(&hang)
			e := loaded(t, "single", nil)
			var failed, canceled atomic.Int32
			w, err := e.Build(ctx, build.Options{
				Event: func(ev build.Event) {
					switch ev.Kind {
					case build.Failed:
						failed.Add(1)
					case build.Canceled:
						canceled.Add(1)
					}
				},
				Source: build.Source{Context: dir}, Names: []string{"made"}, CacheFrom: []string{ref},
				CacheTo: []build.CacheTarget{{Ref: strings.Replace(ref, "cache", name, 1)}},
			})
			if !errors.Is(err, enough) || len(w.Warnings) > 0 || canceled.Load() != 1 || failed.Load() > 0 {
				t.Errorf("%v, warnings %q, %d steps canceled, %d failed", err, w.Warnings, canceled.Load(), failed.Load())
			}
			if left, _ := filepath.Glob(filepath.Join(e.root, "build", ".staging", "[^.]*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// Of several caches one that is gone, or is another image's, is no harm.
func TestSeveralCachesWithADeadOne(t *testing.T) {
	_, ref, dir := cacheOf(t)
	dead := "127.0.0.1:1/cache:1"
	e := loaded(t, "single", nil)
	b := mustBuild(t, e, dir, from(dead, ref, strings.Replace(ref, "cache", "none", 1)))
	if len(b.cached) != 2 || len(b.Warnings) != 2 || !strings.Contains(b.Warnings[0], dead) || !strings.Contains(b.Warnings[1], "/none:1") {
		t.Errorf("cached %q, warnings %q", b.cached, b.Warnings)
	}
}

// Exports to one name at once: one of them is there, whole.
func TestExportsOfACacheAtOnce(t *testing.T) {
	r, ref, _ := cacheOf(t)
	var all sync.WaitGroup
	for n := range 4 {
		e := loaded(t, "single", nil)
		dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY a /", "a": fmt.Sprint(n)})
		all.Go(func() {
			if _, err := buildDockerfile(t, e, dir, func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: ref}} }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	m, doc := documents(t, r)
	if len(doc.Steps) != 1 || len(m.Layers) != 1 {
		t.Errorf("%+v, %+v", m, doc)
	}
}

// Steps that change the same have one layer in a cache and each a time of its
// own: the image that comes of it is the one that was built.
func TestCacheHasTheTimeOfEachStep(t *testing.T) {
	r, host := serve(t, nil)
	ref := host + "/cache:1"
	dir := contextOf(t, map[string]string{"a": "a", "Dockerfile": "FROM busybox\nCOPY a /x\nRUN echo one\nRUN echo two\nRUN rm /x\nCOPY a /x\n"})
	var clock atomic.Int64
	clock.Store(1_700_000_000)
	ticking := func(o *build.Options) {
		o.Epoch, o.Now = time.Time{}, func() time.Time { return time.Unix(clock.Add(1), 0) }
	}
	write := func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: ref}} }
	want := mustBuild(t, loaded(t, "single", nil), dir, ticking, write).Image.ID
	b := mustBuild(t, loaded(t, "single", nil), dir, ticking, from(ref))
	if b.Image.ID != want || len(b.cached) != 5 {
		t.Errorf("%s, cached %q, want %s", b.Image.ID, b.cached, want)
	}
	// It goes on to another cache as it is.
	to := strings.Replace(ref, "cache", "mirror", 1)
	mustBuild(t, loaded(t, "single", nil), dir, ticking, from(ref), func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: to}} })
	if got := mustBuild(t, loaded(t, "single", nil), dir, ticking, from(to)).Image.ID; got != want {
		t.Errorf("from the second cache %s, want %s", got, want)
	}
	// Version 1 has one time for a layer.
	m, doc := documents(t, r)
	old := map[string]any{"version": 1, "layers": []any{}, "steps": map[string]string{}}
	for _, l := range doc.Layers {
		l.Created = time.Unix(1_600_000_000, 0).UTC()
		old["layers"] = append(old["layers"].([]any), l)
	}
	for key, step := range doc.Steps {
		old["steps"].(map[string]string)[key] = step.DiffID
	}
	data, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, r, m, data)
	e := loaded(t, "single", nil)
	b = mustBuild(t, e, dir, ticking, from(ref))
	if len(b.cached) != 5 || len(b.Warnings) > 0 {
		t.Errorf("version 1: cached %q, warnings %q", b.cached, b.Warnings)
	}
	config, err := e.images.Config(b.Image)
	if err != nil || config.Created == nil || config.Created.Unix() != 1_600_000_000 {
		t.Errorf("version 1: created %v (%v)", config.Created, err)
	}
}

// Another stage may have a step with the same key, done at another time.
func TestCacheHasTheTimesOfTheImage(t *testing.T) {
	_, host := serve(t, nil)
	ref := host + "/cache:1"
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox AS one\nRUN true\nRUN echo same; echo x >/x\n" +
		"FROM busybox\nRUN sleep 1.1\nRUN echo same; echo x >/x\nCOPY --from=one /x /y\n"})
	var clock atomic.Int64
	ticking := func(o *build.Options) {
		o.Now = func() time.Time { return time.Unix(1_700_000_000+clock.Add(1), 0) }
	}
	write := func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: ref, Max: true}} }
	want := mustBuild(t, loaded(t, "single", nil), dir, ticking, write).Image.ID
	if b := mustBuild(t, loaded(t, "single", nil), dir, ticking, from(ref)); b.Image.ID != want || len(b.cached) != 5 {
		t.Errorf("%s, cached %q, want %s", b.Image.ID, b.cached, want)
	}
}
