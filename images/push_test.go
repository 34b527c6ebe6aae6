package images

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"nook/images/registry"
	"nook/internal/testenv/testimage"
	"nook/internal/testenv/testregistry"
)

func (r *remote) push(t testing.TB, s *Store, name string) (Pushed, []LayerState, error) {
	t.Helper()
	ref := r.ref(t, name)
	repo, err := r.client.Repository(ref.Registry, ref.Path)
	if err != nil {
		t.Fatal(err)
	}
	states := make(chan LayerState, 100)
	pushed, err := s.Push(t.Context(), repo, ref, PushOptions{Layer: func(_ string, state LayerState) { states <- state }})
	close(states)
	var list []LayerState
	for state := range states {
		list = append(list, state)
	}
	return pushed, list, err
}

// tagged loads an image and gives it names in the registry.
func (r *remote) tagged(t testing.TB, s *Store, img testimage.Image, names ...string) Image {
	t.Helper()
	loaded := loadImage(t, s, img)
	for _, name := range names {
		if err := s.Tag(t.Context(), loaded.ID, r.ref(t, name).String()); err != nil {
			t.Fatal(err)
		}
	}
	return loaded
}

func TestPush(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	img := r.tagged(t, s, small(), "team/app:1", "other/app:1")
	pushed, states, err := r.push(t, s, "team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if pushed.Digest != img.Manifest.Digest || len(states) != 2 || states[0] != LayerPushed {
		t.Errorf("pushed %+v, %v", pushed, states)
	}
	m := r.manifest(t, "team/app", "1")
	for _, d := range append(m.Layers, m.Config) {
		if data, found := r.Blob("team/app", d.Digest); !found || digestOf(data) != d.Digest {
			t.Errorf("blob %s is not there", d.Digest)
		}
	}
	// Once more sends nothing; another repository mounts.
	r.Requests()
	if _, states, err = r.push(t, s, "team/app:1"); err != nil || states[0] != LayerRemote {
		t.Errorf("again: %v, %v", states, err)
	}
	if n := testregistry.Count(r.Requests(), "PATCH"); n != 0 {
		t.Errorf("%d blobs were sent again", n)
	}
	if _, states, err = r.push(t, s, "other/app:1"); err != nil || states[0] != LayerMounted || states[1] != LayerMounted {
		t.Errorf("to another repository: %v, %v", states, err)
	}
	// And it comes back as the same image.
	s2 := newStore(t)
	if pulled := r.mustPull(t, s2, "other/app:1"); pulled.Image.ID != img.ID {
		t.Errorf("pulled %s, pushed %s", pulled.Image.ID, img.ID)
	}
}

func TestPushGoesOnWhereItBroke(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.tagged(t, s, testimage.Image{Name: "x:1", Layers: []testimage.Layer{noise(1, 4<<20)}}, "app:1")
	var broken atomic.Bool
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if broken.Load() || req.Method != http.MethodPatch || req.ContentLength < 1<<20 {
			return false
		}
		broken.Store(true)
		req.Body = http.MaxBytesReader(w, req.Body, 1<<20)
		r.Serve(w, req)
		panic(http.ErrAbortHandler)
	}
	if _, _, err := r.push(t, s, "app:1"); err != nil {
		t.Fatal(err)
	}
	requests := r.Requests()
	if !broken.Load() || testregistry.Count(requests, "GET /v2/app/blobs/uploads/") != 1 || len(r.sleeps) != 1 {
		t.Errorf("broken %v, %d pauses, %v", broken.Load(), len(r.sleeps), requests)
	}
}

// A registry that is broken for good is asked as often as for anything else.
func TestPushToABrokenRegistryEnds(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	m, err := s.Manifest(r.tagged(t, s, small(), "app:1"))
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPost {
			return false
		}
		asked.Add(1)
		testregistry.Fail(w, http.StatusInternalServerError, "UNKNOWN", "broken")
		return true
	}
	_, _, err = r.push(t, s, "app:1")
	wantError(t, err, "500 Internal Server Error: broken", "")
	blobs := len(m.Layers) + 1 // side by side, five attempts each
	if n := int(asked.Load()); n > blobs*5 {
		t.Errorf("it was asked %d times to take %d blobs", n, blobs)
	}
}

func TestPushToARegistryThatTakesWholeBlobs(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.tagged(t, s, small(), "app:1")
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPatch {
			return false
		}
		w.WriteHeader(http.StatusMethodNotAllowed)
		return true
	}
	if _, _, err := r.push(t, s, "app:1"); err != nil {
		t.Fatal(err)
	}
}

func TestPushRefused(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	img := r.tagged(t, s, small(), "app:1")
	if _, _, err := r.push(t, s, "nosuch:1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an image that isn't here: %v", err)
	}
	r.User, r.Password = "me", "secret"
	if _, _, err := r.push(t, s, "app:1"); !errors.Is(err, registry.ErrDenied) {
		t.Errorf("without a password: %v", err)
	}
	r.User, r.Password = "", ""
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/manifests/") {
			return false
		}
		testregistry.Fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid")
		return true
	}
	_, _, err := r.push(t, s, "app:1")
	wantError(t, err, "manifest invalid", "old registry")
	// A blob that is lost here.
	r.Lie = nil
	m, err := s.Manifest(img)
	if err != nil {
		t.Fatal(err)
	}
	r2 := newRemote(t)
	if err := s.Tag(t.Context(), img.ID, r2.ref(t, "app:1").String()); err != nil {
		t.Fatal(err)
	}
	truncate(t, s.blobPath(m.Layers[0].Digest))
	_, _, err = r2.push(t, s, "app:1")
	wantError(t, err, "doesn't have it whole", "pull or load")
}

// TestUploadGetsNoCredentialsElsewhere: a registry sends an upload to another
// host.
func TestUploadGetsNoCredentialsElsewhere(t *testing.T) {
	r, s := newRemote(t), newStore(t)
	r.tagged(t, s, small(), "app:1")
	other := newRemote(t)
	r.client = registry.New(registry.Options{Credentials: account{"me", "secret"}})
	t.Cleanup(r.client.Close)
	r.User, r.Password = "me", "secret"
	r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPost || req.Header.Get("Authorization") == "" {
			return false
		}
		var sent bytes.Buffer
		_, _ = sent.ReadFrom(req.Body)
		w.Header().Set("Location", "http://"+strings.Replace(other.host, "127.0.0.1", "localhost", 1)+"/v2/app/blobs/uploads/x")
		w.WriteHeader(http.StatusAccepted)
		return true
	}
	if _, _, err := r.push(t, s, "app:1"); err == nil {
		t.Error("an upload to nowhere succeeded")
	}
	requests := other.Requests()
	for _, req := range requests {
		if req.Authorization != "" {
			t.Errorf("%v has credentials of another host", req)
		}
	}
	if len(requests) == 0 {
		t.Error("the other host was never asked")
	}
}

type account struct{ user, password string }

func (a account) Lookup(context.Context, string) (registry.Credential, error) {
	return registry.Credential{Username: a.user, Password: a.password}, nil
}

func truncate(t testing.TB, name string) {
	t.Helper()
	if err := errors.Join(os.Remove(name), os.WriteFile(name, nil, 0o444)); err != nil {
		t.Fatal(err)
	}
}
