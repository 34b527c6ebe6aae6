package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"nook/internal/hint"
	"nook/internal/testenv/testregistry"
)

func TestCatalogListsEveryPage(t *testing.T) {
	w := newWorld(t)
	for _, repo := range []string{"web", "team/app", "team/web", "base", "hub/one", "hubs/two"} {
		w.AddManifest(repo, "1", testregistry.TypeManifest, []byte("{}"))
	}
	client := New(Options{Sleep: w.sleep})
	t.Cleanup(client.Close)
	got, err := client.Catalog(t.Context(), w.host)
	if want := []string{"base", "hub/one", "hubs/two", "team/app", "team/web", "web"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if n := testregistry.Count(w.Requests(), "GET /v2/_catalog"); n != 3 {
		t.Errorf("%d requests, want 3 pages", n)
	}
	part := New(Options{Config: &Config{Registries: []Location{{Prefix: "hub.test", Location: w.host + "/hub", Insecure: true}}}})
	t.Cleanup(part.Close)
	if got, err := part.Catalog(t.Context(), "hub.test"); err != nil || !slices.Equal(got, []string{"one"}) {
		t.Errorf("of a registry that is a part of another: got %q, %v", got, err)
	}
}

func TestCatalogAsksWithCredentialsForItself(t *testing.T) {
	w := newWorld(t)
	w.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	var scope string
	w.Lie = func(rw http.ResponseWriter, req *http.Request) bool {
		switch {
		case req.URL.Path == "/token":
			scope = req.URL.Query().Get("scope")
			_ = json.NewEncoder(rw).Encode(map[string]string{"token": "t"})
		case req.Header.Get("Authorization") != "Bearer t":
			rw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, w.host))
			testregistry.Fail(rw, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		default:
			return false
		}
		return true
	}
	client := New(Options{Sleep: w.sleep})
	t.Cleanup(client.Close)
	if got, err := client.Catalog(t.Context(), w.host); err != nil || len(got) != 1 || scope != "registry:catalog:*" {
		t.Errorf("got %q, %v, with a token for %q", got, err, scope)
	}
}

func TestCatalogThatIsNotOffered(t *testing.T) {
	for status, advice := range map[int]string{
		http.StatusNotFound:         "pull it by",
		http.StatusUnauthorized:     "nook login",
		http.StatusForbidden:        "nook login",
		http.StatusMethodNotAllowed: "nook login",
	} {
		w := newWorld(t)
		w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
			testregistry.Fail(rw, status, "UNSUPPORTED", "the operation is unsupported")
			return true
		}
		client := New(Options{Sleep: w.sleep})
		t.Cleanup(client.Close)
		_, err := client.Catalog(t.Context(), w.host)
		if wantPlainError(t, err, ErrNoCatalog, "unsupported"); !strings.Contains(hint.Of(err), advice) {
			t.Errorf("%d: hint %q, want %q in it", status, hint.Of(err), advice)
		}
	}
	blocked := New(Options{Config: &Config{Registries: []Location{{Prefix: "x.test", Location: "x.test", Blocked: true}}}})
	if _, err := blocked.Catalog(t.Context(), "x.test"); !errors.Is(err, ErrBlocked) {
		t.Errorf("got %v, want ErrBlocked", err)
	}
}

func TestListsThatNeverEnd(t *testing.T) {
	w := newWorld(t)
	names, _ := json.Marshal(slices.Repeat([]string{"a"}, 30_000))
	w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Link", `</v2/_catalog?n=1>; rel="next"`)
		fmt.Fprintf(rw, `{"repositories":%s}`, names)
		return true
	}
	client := New(Options{Sleep: w.sleep})
	t.Cleanup(client.Close)
	_, err := client.Catalog(t.Context(), w.host)
	wantPlainError(t, err, ErrSize, "over 100000 repositories")
	w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(rw, "<html>")
		return true
	}
	_, err = client.Catalog(t.Context(), w.host)
	wantPlainError(t, err, ErrProtocol, "lists repositories")
}
