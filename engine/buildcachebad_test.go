package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nook/build"
	"nook/images"
	"nook/internal/testenv/testregistry"
)

const cachedSteps = "FROM busybox\nRUN echo was made; echo made >/made; rm /etc/group\nCOPY a /\n"

// cacheOf is a registry with the cache of a build of cachedSteps, at the
// reference, and the build's context.
func cacheOf(t *testing.T) (r *testregistry.Registry, ref, dir string) {
	t.Helper()
	r, host := serve(t, nil)
	dir = contextOf(t, map[string]string{"Dockerfile": cachedSteps, "a": "a"})
	ref = host + "/cache:1"
	mustBuild(t, loaded(t, "single", nil), dir, func(o *build.Options) { o.CacheTo = []build.CacheTarget{{Ref: ref}} })
	r.Requests()
	return r, ref, dir
}

func from(refs ...string) func(*build.Options) {
	return func(o *build.Options) { o.CacheFrom = refs }
}

// documents are the manifest and the config of the cache.
func documents(t *testing.T, r *testregistry.Registry) (m images.Manifest, doc cacheDocument) {
	t.Helper()
	body, ok := r.Manifest("cache", "1")
	if err := json.Unmarshal(body.Body, &m); err != nil || !ok {
		t.Fatalf("%v, %s", err, body.Body)
	}
	data, _ := r.Blob("cache", m.Config.Digest)
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatalf("%v, %s", err, data)
	}
	return m, doc
}

// forge puts other documents in their place.
func forge(t *testing.T, r *testregistry.Registry, change func(*images.Manifest, *cacheDocument)) {
	t.Helper()
	m, doc := documents(t, r)
	change(&m, &doc)
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, r, m, data)
}

// publish puts a config in the place of the cache's.
func publish(t *testing.T, r *testregistry.Registry, m images.Manifest, config []byte) {
	t.Helper()
	m.Config.Digest, m.Config.Size = r.AddBlob("cache", config), int64(len(config))
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r.AddManifest("cache", "1", m.MediaType, body)
}

// Who prunes while a build runs takes nothing away that it has fetched.
func TestFetchedLayersStayWhileTheirBuildRuns(t *testing.T) {
	_, ref, dir := cacheOf(t)
	e := loaded(t, "single", nil)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("Dockerfile", cachedSteps+"RUN echo prune now; cat /made\n")
	pruned := false
	b := mustBuild(t, e, dir, from(ref), func(o *build.Options) {
		told := o.Event
		o.Event = func(ev build.Event) {
			told(ev)
			if ev.Kind != build.Wrote || pruned {
				return
			}
			pruned = true
			if _, err := e.PruneBuilds(t.Context(), BuildPruneOptions{All: true}); err != nil {
				t.Error(err)
			}
		}
	})
	if !pruned || len(b.cached) != 2 || len(b.Warnings) > 0 {
		t.Errorf("pruned %v, cached %q, warnings %q, output %q", pruned, b.cached, b.Warnings, b.out)
	}
}

// lie is what is wrong with a cache: its documents, or the answers to some
// requests.
type lie struct {
	documents func(*images.Manifest, *cacheDocument)
	// ask is in the path of those requests; layer and config stand for these
	// blobs.
	ask     string
	answer  func(w http.ResponseWriter, blob []byte)
	warning string
}

func liesOfDocuments() map[string]lie {
	zeros := "sha256:" + strings.Repeat("0", 64)
	list := func(change func(d *cacheDocument, first *cacheLayer), warning string) lie {
		return lie{documents: func(_ *images.Manifest, d *cacheDocument) { change(d, &d.Layers[0]) }, warning: warning}
	}
	return map[string]lie{
		"version":        list(func(d *cacheDocument, _ *cacheLayer) { d.Version = 99 }, "version 99 is not known"),
		"no such layer":  list(func(d *cacheDocument, _ *cacheLayer) { d.Layers = d.Layers[1:] }, "it has no layer"),
		"diff id a path": list(func(_ *cacheDocument, l *cacheLayer) { l.DiffID = "sha256:../../../etc/passwd" }, "is not a sha256 digest"),
		"blob a path":    list(func(_ *cacheDocument, l *cacheLayer) { l.Blob.Digest = "../../x" }, "is not a sha256 digest"),
		"a diff id of others": list(func(d *cacheDocument, l *cacheLayer) {
			for key, step := range d.Steps {
				if step.DiffID == l.DiffID {
					d.Steps[key] = cacheStep{DiffID: zeros}
				}
			}
			l.DiffID = zeros
		}, "has the digest"),
		"swapped blobs": list(func(d *cacheDocument, l *cacheLayer) {
			l.Blob, d.Layers[1].Blob = d.Layers[1].Blob, l.Blob
		}, "has the digest"),
		"called empty":      list(func(_ *cacheDocument, l *cacheLayer) { l.Empty = true }, "is called empty"),
		"media type":        list(func(_ *cacheDocument, l *cacheLayer) { l.Blob.MediaType = "text/html" }, "text/html"),
		"negative size":     list(func(_ *cacheDocument, l *cacheLayer) { l.Blob.Size = -1 }, "has -1 bytes"),
		"longer than said":  list(func(_ *cacheDocument, l *cacheLayer) { l.Blob.Size-- }, "wrong size"),
		"shorter than said": list(func(_ *cacheDocument, l *cacheLayer) { l.Blob.Size++ }, "wrong size"),
		"exabytes":          list(func(_ *cacheDocument, l *cacheLayer) { l.Blob.Size = 1 << 62 }, "wrong size"),
		"steps of nothing": list(func(d *cacheDocument, _ *cacheLayer) {
			for n := range 50_000 {
				d.Steps[fmt.Sprint("sha256:", n)] = cacheStep{DiffID: d.Layers[0].DiffID}
			}
			d.Steps[""] = cacheStep{DiffID: zeros}
		}, "it has no layer"),
		"too long a list": list(func(d *cacheDocument, _ *cacheLayer) {
			d.Steps[strings.Repeat("x", cacheDocumentSize)] = cacheStep{}
		}, "and may have"),
		"a time that none is": list(func(d *cacheDocument, first *cacheLayer) {
			for key, step := range d.Steps {
				step.Created = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200))
				d.Steps[key] = step
			}
		}, "the time of one"),
		"an image": {documents: func(m *images.Manifest, _ *cacheDocument) {
			m.Config.MediaType = "application/vnd.oci.image.config.v1+json"
		}, warning: "none that nook build wrote"},
	}
}

func liesOfAnswers() map[string]lie {
	text := func(s string) func(http.ResponseWriter, []byte) {
		return func(w http.ResponseWriter, _ []byte) { fmt.Fprint(w, s) }
	}
	status := func(code int, name string) func(http.ResponseWriter, []byte) {
		return func(w http.ResponseWriter, _ []byte) { testregistry.Fail(w, code, name, "no") }
	}
	other := func(w http.ResponseWriter, blob []byte) { _, _ = w.Write(bytes.Repeat([]byte(" "), len(blob))) }
	more := func(w http.ResponseWriter, blob []byte) { _, _ = w.Write(append(blob[:len(blob):len(blob)], 'x')) }
	return map[string]lie{
		"a portal's page": {ask: "/v2/", answer: text("<html>log in</html>"), warning: "none that nook build wrote"},
		"null":            {ask: "/manifests/", answer: text("null"), warning: "none that nook build wrote"},
		"denied":          {ask: "/manifests/", answer: status(403, "DENIED"), warning: "403 Forbidden"},
		"denied midway":   {ask: "layer", answer: status(401, "UNAUTHORIZED"), warning: "401 Unauthorized"},
		"another blob":    {ask: "layer", answer: other, warning: "came with the digest"},
		"a longer blob":   {ask: "layer", answer: more, warning: "wrong size"},
		"no blob":         {ask: "layer", answer: status(404, "BLOB_UNKNOWN"), warning: "404 Not Found"},
		"another list":    {ask: "config", answer: other, warning: "another digest"},
		"no list":         {ask: "config", answer: status(404, "BLOB_UNKNOWN"), warning: "404 Not Found"},
	}
}

// A cache that lies costs a warning: the build is what it were without it.
func TestLiesOfACache(t *testing.T) {
	r, ref, dir := cacheOf(t)
	truth, _ := r.Manifest("cache", "1")
	all := liesOfDocuments()
	maps.Copy(all, liesOfAnswers())
	for name, tc := range all {
		t.Run(name, func(t *testing.T) {
			r.AddManifest("cache", "1", truth.Type, truth.Body)
			if tc.documents != nil {
				forge(t, r, tc.documents)
			}
			m, doc := documents(t, r)
			digest := map[string]string{"layer": doc.Layers[0].Blob.Digest, "config": m.Config.Digest}[tc.ask]
			blob, _ := r.Blob("cache", digest)
			r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
				if tc.answer == nil || !strings.Contains(req.URL.Path, first(digest, tc.ask)) {
					return false
				}
				tc.answer(w, blob)
				return true
			}
			e := loaded(t, "single", nil)
			b := mustBuild(t, e, dir, from(ref))
			if len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], tc.warning) || strings.Contains(b.Warnings[0], "\n") {
				t.Errorf("warnings are %q, want one with %q", b.Warnings, tc.warning)
			}
			if got := sh(t, e, "cat /made /a; test ! -e /etc/group", func(o *RunOptions) { o.Image = "made" }); got != "made\na" {
				t.Errorf("the image has %q", got)
			}
			if left, _ := filepath.Glob(filepath.Join(e.root, "build", ".staging", "[^.]*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}
