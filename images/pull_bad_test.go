package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"nook/images/registry"
	"nook/internal/testenv/testimage"
	"nook/internal/testenv/testregistry"
)

// manifest is a valid image's, to be changed.
func (r *remote) manifest(t testing.TB, repo, tag string) *Manifest {
	t.Helper()
	found, ok := r.Manifest(repo, tag)
	if !ok {
		t.Fatalf("no %s:%s", repo, tag)
	}
	m := new(Manifest)
	mustUnmarshal(t, found.Body, m)
	return m
}

func (r *remote) put(t testing.TB, repo, tag string, m *Manifest) {
	t.Helper()
	r.AddManifest(repo, tag, m.MediaType, mustJSON(t, m))
}

// wantRefused pulls app:1 and wants one error, and nothing left behind.
func wantRefused(t *testing.T, r *remote, target error, text string) {
	t.Helper()
	s := newStore(t)
	unpacked := make(chan error, 1)
	_, err := r.pull(t, s, "app:1", PullOptions{Unpack: func(ctx context.Context, _ Image, _ []Layer, arrivals <-chan Arrival) error {
		whole := 0
		for a := range arrivals {
			if a.Whole {
				whole++
			}
		}
		unpacked <- nil
		return ctx.Err()
	}})
	if err == nil {
		t.Fatalf("got no error, want %q", text)
	}
	if target != nil && !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
	if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
		t.Errorf("got error %q, want %q in it", err, text)
	}
	wantEmpty(t, s)
}

func TestPullRefuses(t *testing.T) {
	zeros := "sha256:" + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		change func(t *testing.T, r *remote, m *Manifest)
		want   error
		text   string
	}{
		"a foreign layer": {func(_ *testing.T, _ *remote, m *Manifest) {
			m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		}, ErrMediaType, "foreign"},
		"no image": {func(_ *testing.T, _ *remote, m *Manifest) {
			m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
		},
			ErrMediaType, "helm"},
		"a config that isn't there": {func(_ *testing.T, _ *remote, m *Manifest) { m.Config.Digest = zeros }, registry.ErrNotFound, "image config"},
		"a layer that isn't there":  {func(_ *testing.T, _ *remote, m *Manifest) { m.Layers[1].Digest = zeros }, registry.ErrNotFound, "layer 000000000000"},
		"a config of 1 GiB":         {func(_ *testing.T, _ *remote, m *Manifest) { m.Config.Size = 1 << 30 }, registry.ErrSize, "image config"},
		"a layer's size too small":  {func(_ *testing.T, _ *remote, m *Manifest) { m.Layers[0].Size-- }, registry.ErrSize, "layer"},
		"a layer's size too large":  {func(_ *testing.T, _ *remote, m *Manifest) { m.Layers[0].Size++ }, registry.ErrSize, "layer"},
		"a negative size":           {func(_ *testing.T, _ *remote, m *Manifest) { m.Layers[0].Size = -1 }, ErrDigest, "size -1"},
		"a path for a digest":       {func(_ *testing.T, _ *remote, m *Manifest) { m.Layers[0].Digest = "sha256:../../../etc/passwd" }, nil, "not a sha256 digest"},
		"layers without diff ids":   {func(_ *testing.T, _ *remote, m *Manifest) { m.Layers = m.Layers[:1] }, ErrDigest, "diff ids"},
		"10,000 layers": {func(_ *testing.T, _ *remote, m *Manifest) {
			for range 10_000 {
				m.Layers = append(m.Layers, m.Layers[0])
			}
		}, nil, "10002 layers"},
		"garbage for a layer": {func(_ *testing.T, r *remote, m *Manifest) {
			garbage := bytes.Repeat([]byte("garbage "), 1<<17)
			r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, m.Layers[0].Digest) {
					return false
				}
				testregistry.SendBlob(w, req, garbage)
				return true
			}
			m.Layers[0].Size = int64(len(garbage))
		}, ErrDigest, "should have"},
		"another config": {func(_ *testing.T, r *remote, m *Manifest) {
			r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
				if !strings.HasSuffix(req.URL.Path, m.Config.Digest) {
					return false
				}
				testregistry.SendBlob(w, req, bytes.Repeat([]byte(" "), int(m.Config.Size)))
				return true
			}
		}, ErrDigest, "image config"},
		"a plain layer of another diff id": {func(_ *testing.T, r *remote, m *Manifest) {
			body := []byte("not what the config says")
			m.Layers[0].Digest, m.Layers[0].Size = r.AddBlob("app", body), int64(len(body))
		}, ErrDigest, "diff id"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote(t)
			r.image(t, "app", "1", small())
			m := r.manifest(t, "app", "1")
			c.change(t, r, m)
			r.put(t, "app", "1", m)
			wantRefused(t, r, c.want, c.text)
		})
	}
}

func TestPullRefusesIndexes(t *testing.T) {
	nested := func(t *testing.T, r *remote, depth int) {
		t.Helper()
		digest := r.image(t, "app", "", small())
		for i := range depth {
			tag := ""
			if i == depth-1 {
				tag = "1"
			}
			digest = r.AddIndex("app", tag, testregistry.Entry{Digest: digest})
		}
	}
	t.Run("100 deep", func(t *testing.T) {
		r := newRemote(t)
		nested(t, r, 100)
		wantRefused(t, r, nil, "nest deeper than 4")
		if n := len(r.Requests()); n > 10 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("as deep as buildx and one more", func(t *testing.T) {
		r := newRemote(t)
		nested(t, r, 3)
		if _, err := r.pull(t, newStore(t), "app:1", PullOptions{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("wide", func(t *testing.T) {
		r := newRemote(t)
		var entries []testregistry.Entry
		for i := range 100 {
			digest := r.AddManifest("app", "", testregistry.TypeIndex, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"annotations":{"i":"%d"}}`, i))
			entries = append(entries, testregistry.Entry{Digest: digest})
		}
		r.AddIndex("app", "1", entries...)
		wantRefused(t, r, nil, "more than 32")
	})
	t.Run("empty", func(t *testing.T) {
		r := newRemote(t)
		r.AddIndex("app", "1")
		wantRefused(t, r, ErrPlatform, "no image for linux/"+runtime.GOARCH)
	})
	t.Run("a manifest that is an index as well", func(t *testing.T) {
		r := newRemote(t)
		r.image(t, "app", "1", small())
		var both map[string]any
		found, _ := r.Manifest("app", "1")
		mustUnmarshal(t, found.Body, &both)
		both["manifests"] = []any{}
		body, err := json.Marshal(both)
		if err != nil {
			t.Fatal(err)
		}
		r.AddManifest("app", "1", testregistry.TypeManifest, body)
		wantRefused(t, r, ErrMediaType, "index as well")
	})
	t.Run("schema 1", func(t *testing.T) {
		r := newRemote(t)
		r.AddManifest("app", "1", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1}`))
		wantRefused(t, r, ErrMediaType, "schema 1")
	})
	t.Run("a web page", func(t *testing.T) {
		r := newRemote(t)
		r.AddManifest("app", "1", "text/html", []byte("<html>"))
		wantRefused(t, r, ErrMediaType, "text/html")
	})
}

// TestPullTellsWhoIsToBlame: an unpacker that stumbles over garbage hears
// whether the registry sent it or the image is made of it.
func TestPullTellsWhoIsToBlame(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.image(t, "app", "1", testimage.Image{Name: "app:1", Layers: []testimage.Layer{noise(1, 2<<20)}})
	m := r.manifest(t, "app", "1")
	broken := errors.New("gzip stream is damaged")
	stumble := func(_ context.Context, _ Image, _ []Layer, arrivals <-chan Arrival) error {
		<-arrivals
		return broken
	}
	if _, err := r.pull(t, s, "app:1", PullOptions{Unpack: stumble}); !errors.Is(err, broken) {
		t.Errorf("an image of garbage: %v", err)
	}
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, m.Layers[0].Digest) {
			return false
		}
		testregistry.SendBlob(w, req, make([]byte, m.Layers[0].Size))
		return true
	}
	if _, err := r.pull(t, s, "app:1", PullOptions{Unpack: stumble}); !errors.Is(err, ErrDigest) {
		t.Errorf("a registry of garbage: %v", err)
	}
	wantEmpty(t, s)
}

// TestPullKeepsMemorySmall pulls 64 MiB and looks at what the heap grew by.
func TestPullKeepsMemorySmall(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	const size = 64 << 20
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := newHashWriter()
	for range size / len(chunk) {
		_, _ = sum.Write(chunk)
	}
	config := mustJSON(t, ImageConfig{OS: "linux", Architecture: runtime.GOARCH, RootFS: RootFS{Type: "layers", DiffIDs: []string{sum.digest()}}})
	r.put(t, "app", "1", &Manifest{
		SchemaVersion: 2, MediaType: mediaTypeManifest,
		Config: Descriptor{MediaType: mediaTypeConfig, Digest: r.AddBlob("app", config), Size: int64(len(config))},
		Layers: []Descriptor{{MediaType: mediaTypeLayer, Digest: sum.digest(), Size: size}},
	})
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, sum.digest()) {
			return false
		}
		w.Header().Set("Content-Length", itoa(size))
		for range size / len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return true
			}
		}
		return true
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.mustPull(t, s, "app:1")
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d MiB were allocated for a layer of %d", grown>>20, size>>20)
	}
}
