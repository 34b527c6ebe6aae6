package images

import (
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"

	"nook/images/registry"
	"nook/internal/testenv/testimage"
)

// TestAgainstAnotherRegistry: a registry in memory of others' making takes what
// is pushed, and gives it back: testregistry alone would share our misreadings
// of the specification.
func TestAgainstAnotherRegistry(t *testing.T) {
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	client := registry.New(registry.Options{})
	t.Cleanup(client.Close)
	from := newStore(t)
	ref := func(name string) Reference {
		t.Helper()
		r, err := ParseReference(host + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	repo := func(r Reference) *registry.Repository {
		t.Helper()
		got, err := client.Repository(r.Registry, r.Path)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	pushed := map[string]string{}
	for _, compression := range []string{testimage.Plain, testimage.Gzip, testimage.Zstd} {
		img := one("x:1", "body of "+compression)
		img.Compression = compression
		loaded := loadImage(t, from, img)
		name := ref("team/app:" + "c" + compression)
		if err := from.Tag(t.Context(), loaded.ID, name.String()); err != nil {
			t.Fatal(err)
		}
		states := map[LayerState]int{}
		got, err := from.Push(t.Context(), repo(name), name, PushOptions{Layer: func(_ string, s LayerState) { states[s]++ }})
		if err != nil || got.Digest != loaded.Manifest.Digest || states[LayerPushed] != 1 {
			t.Fatalf("push %s: %+v, %v, %v", name, got, states, err)
		}
		pushed[name.Tag] = got.Digest
		// Once more: nothing is sent. Into another repository: mounted, or not sent.
		states = map[LayerState]int{}
		if _, err := from.Push(t.Context(), repo(name), name, PushOptions{Layer: func(_ string, s LayerState) { states[s]++ }}); err != nil || states[LayerRemote] != 1 {
			t.Errorf("push %s again: %v, %v", name, states, err)
		}
		other := ref("other/app:" + name.Tag)
		if err := from.Tag(t.Context(), name.String(), other.String()); err != nil {
			t.Fatal(err)
		}
		if _, err := from.Push(t.Context(), repo(other), other, PushOptions{}); err != nil {
			t.Errorf("push %s: %v", other, err)
		}
	}
	tags, err := repo(ref("team/app")).Tags(t.Context())
	if slices.Sort(tags); err != nil || !slices.Equal(tags, []string{"c", "cgzip", "czstd"}) {
		t.Errorf("tags %q, %v", tags, err)
	}
	if all, err := client.Catalog(t.Context(), host); err != nil || !slices.Equal(all, []string{"other/app", "team/app"}) {
		t.Errorf("catalog %q, %v", all, err)
	}
	for tag, digest := range pushed {
		to := newStore(t)
		for _, name := range []Reference{ref("team/app:" + tag), ref("other/app@" + digest)} {
			got, err := to.Pull(t.Context(), repo(name), name, PullOptions{})
			if err != nil || got.Digest != digest {
				t.Errorf("pull %s: %s, %v; want %s", name, got.Digest, err, digest)
			}
		}
		if found := check(t, to, false); len(found.Findings) > 0 {
			t.Errorf("the store isn't whole: %s", facts(found))
		}
	}
	missing := ref("team/app:nosuch")
	if _, err := from.Pull(t.Context(), repo(missing), missing, PullOptions{}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("what isn't there: %v", err)
	}
	if body, err := RemoteManifest(t.Context(), repo(ref("team/app:c")), ref("team/app:c")); err != nil || digestOf(body) != pushed["c"] {
		t.Errorf("manifest: %v", err)
	}
}
