package registry

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nook/internal/hint"
	"nook/internal/testenv/testregistry"
)

// world is a registry that a client talks to.
type world struct {
	*testregistry.Registry
	server *httptest.Server
	host   string
	mu     sync.Mutex
	sleeps []time.Duration
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Registry: testregistry.New()}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	w.host = strings.TrimPrefix(w.server.URL, "http://")
	return w
}

func (w *world) sleep(ctx context.Context, d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sleeps = append(w.sleeps, d)
	return ctx.Err()
}

func (w *world) repo(t *testing.T, o Options) *Repository {
	t.Helper()
	o.Sleep = w.sleep
	client := New(o)
	t.Cleanup(client.Close)
	r, err := client.Repository(w.host, "app")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// keys is Credentials for one registry.
type keys map[string]Credential

func (k keys) Lookup(_ context.Context, registry string) (Credential, error) { return k[registry], nil }

var accept = []string{testregistry.TypeManifest}

// oneBlob puts a blob of n bytes into the registry.
func (w *world) oneBlob(n int) (digest string, data []byte) {
	data = bytes.Repeat([]byte("0123456789abcdef"), n/16)
	return w.AddBlob("app", data), data
}

// wantPlainError wants an error that is one line, without the secrets that
// tests use, and has text in it.
func wantPlainError(t *testing.T, err error, target error, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %q", text)
	}
	if target != nil && !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
	said := err.Error() + hint.Of(err)
	if !strings.Contains(said, text) || strings.ContainsAny(said, "\n\x1b") || strings.Contains(said, "secret") || len(said) > 1000 {
		t.Errorf("got error %q, want one line with %q", said, text)
	}
}

func TestBlobIsResumedByRange(t *testing.T) {
	w := newWorld(t)
	digest, data := w.oneBlob(4 << 20)
	cuts := 0
	w.Lie = func(rw http.ResponseWriter, req *http.Request) bool {
		if cuts == 3 {
			return false
		}
		cuts++
		rest := &cut{rw, 1 << 20}
		testregistry.SendBlob(rest, req, data)
		panic(http.ErrAbortHandler)
	}
	var got bytes.Buffer
	got.Write(data[:100])
	if err := w.repo(t, Options{}).Blob(t.Context(), digest, int64(len(data)), 100, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Errorf("got %d bytes that differ from the %d sent", got.Len(), len(data))
	}
	if first := w.Requests()[0].Range; first != "bytes=100-" {
		t.Errorf("first range %q", first)
	}
	if len(w.sleeps) != 3 {
		t.Errorf("pauses %v, want 3", w.sleeps)
	}
}

// cut sends n bytes and no more.
type cut struct {
	http.ResponseWriter
	n int
}

func (c *cut) Write(b []byte) (int, error) {
	send := b[:min(len(b), c.n)]
	n, err := c.ResponseWriter.Write(send)
	c.n -= n
	c.ResponseWriter.(http.Flusher).Flush()
	return len(b), err
}

func TestBlobWithoutRangesIsSkipped(t *testing.T) {
	w := newWorld(t)
	digest, data := w.oneBlob(1 << 20)
	w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
		_, _ = rw.Write(data)
		return true
	}
	got := bytes.NewBuffer(bytes.Clone(data[:5000]))
	if err := w.repo(t, Options{}).Blob(t.Context(), digest, int64(len(data)), 5000, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("the content differs")
	}
}

func TestBlobsThatLie(t *testing.T) {
	const size = 1 << 20
	data := bytes.Repeat([]byte("x"), size)
	for name, c := range map[string]struct {
		lie  http.HandlerFunc
		want error
		text string
	}{
		"a longer one":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(data, "more"...)) }, ErrSize, "goes on after"},
		"a shorter one": {func(w http.ResponseWriter, r *http.Request) { testregistry.SendBlob(w, r, data[:10]) }, ErrSize, "has no byte 10"},
		"an endless one": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(data); err != nil {
					return
				}
			}
		}, ErrSize, "goes on after"},
		"another range": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 7-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, ErrProtocol, "bytes 7-9/10"},
		"always half": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, errBroken, "broke off at 10"},
		"nothing": {func(w http.ResponseWriter, _ *http.Request) {
			testregistry.Fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob \x1b[31munknown\nto registry")
		}, ErrNotFound, "unknown to registry"},
		"a page": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write(bytes.Repeat([]byte("<html>"), 1<<20))
		}, ErrDenied, "403 Forbidden"},
		"redirects for ever": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, ErrProtocol, "more than 10 times"},
		"a redirect to a file": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, ErrProtocol, "file:///etc/passwd"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Lie = func(rw http.ResponseWriter, r *http.Request) bool { c.lie(rw, r); return true }
			var got bytes.Buffer
			err := w.repo(t, Options{}).Blob(t.Context(), "sha256:"+strings.Repeat("0", 64), size, 10, &got)
			wantPlainError(t, err, c.want, c.text)
			if got.Len() > size-10 {
				t.Errorf("%d bytes were written, there is room for %d", got.Len(), size-10)
			}
			if n := len(w.Requests()); n > 2*maxRedirects {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestBlobThatStalls(t *testing.T) {
	w := newWorld(t)
	digest, data := w.oneBlob(1 << 20)
	stalled := false
	w.Lie = func(rw http.ResponseWriter, req *http.Request) bool {
		if stalled {
			return false
		}
		stalled = true
		rw.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = rw.Write(data[:1000])
		rw.(http.Flusher).Flush()
		<-req.Context().Done()
		return true
	}
	var got bytes.Buffer
	if err := w.repo(t, Options{Stall: 200 * time.Millisecond}).Blob(t.Context(), digest, int64(len(data)), 0, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Error("the content differs")
	}
}

// TestStatusesInTurn gives 429, 500, 503 and a broken connection before the
// answer.
func TestStatusesInTurn(t *testing.T) {
	w := newWorld(t)
	digest := w.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	var turn atomic.Int32 // a request whose connection broke may still be read
	w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
		switch turn.Add(1) {
		case 1:
			rw.Header().Set("Retry-After", "7")
			testregistry.Fail(rw, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
		case 2:
			rw.WriteHeader(http.StatusInternalServerError)
		case 3:
			rw.Header().Set("Retry-After", time.Now().Add(100*time.Second).UTC().Format(http.TimeFormat))
			rw.WriteHeader(http.StatusServiceUnavailable)
		case 4:
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	}
	r := w.repo(t, Options{})
	m, err := r.Manifest(t.Context(), "1", accept)
	if err != nil || m.Digest != digest {
		t.Fatalf("manifest %v, %v", m, err)
	}
	// net/http itself asks again where a connection that was used before breaks.
	// It uses none again that took it 50 ms to write a request, as it may on a
	// busy machine: then there is one pause more.
	if n := len(w.sleeps); n != 3 && n != 4 || w.sleeps[0] != 7*time.Second || w.sleeps[1] < firstPause ||
		w.sleeps[2] < 30*time.Second || w.sleeps[2] > 100*time.Second {
		t.Errorf("pauses %v", w.sleeps)
	}
	// And never ends.
	w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Retry-After", "1")
		testregistry.Fail(rw, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
		return true
	}
	w.Requests()
	_, err = r.Manifest(t.Context(), "1", accept)
	wantPlainError(t, err, nil, "429 Too Many Requests: slow down")
	if n := len(w.Requests()); n != maxAttempts {
		t.Errorf("%d attempts, want %d", n, maxAttempts)
	}
	// A registry that asks for an hour is not waited for.
	w.Lie = func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Retry-After", "3600")
		rw.WriteHeader(http.StatusTooManyRequests)
		return true
	}
	_, err = r.Manifest(t.Context(), "1", accept)
	wantPlainError(t, err, nil, "1h0m0s")
}

func TestManifestsThatLie(t *testing.T) {
	for name, c := range map[string]struct {
		lie  http.HandlerFunc
		want error
	}{
		"100 MiB, announced": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(100<<20))
		}, ErrSize},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, ErrSize},
		"another digest in the header": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("1", 64))
			_, _ = w.Write([]byte("{}"))
		}, ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Lie = func(rw http.ResponseWriter, r *http.Request) bool { c.lie(rw, r); return true }
			_, err := w.repo(t, Options{}).Manifest(t.Context(), "1", accept)
			wantPlainError(t, err, c.want, "manifest")
		})
	}
	w := newWorld(t)
	w.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	w.Lie = func(rw http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = "/v2/app/manifests/1"
		return false
	}
	_, err := w.repo(t, Options{}).Manifest(t.Context(), "sha256:"+strings.Repeat("2", 64), accept)
	wantPlainError(t, err, ErrDigest, "should have sha256:222")
}

func TestBasicCredentialsStayWithTheirHost(t *testing.T) {
	w := newWorld(t)
	w.User, w.Password = "me", "secret"
	digest, data := w.oneBlob(1 << 10)
	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		leaked = append(leaked, r.Header.Get("Authorization"), r.Header.Get("Cookie"))
		testregistry.SendBlob(rw, r, data)
	}))
	defer elsewhere.Close()
	w.Lie = func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			return false
		}
		target := strings.Replace(elsewhere.URL, "127.0.0.1", "me:secret@localhost", 1)
		http.Redirect(rw, r, target+"/blob", http.StatusTemporaryRedirect)
		return true
	}
	// The redirect goes from http to http on another host: only loopback may.
	var got bytes.Buffer
	if err := w.repo(t, Options{Credentials: keys{w.host: {Username: "me", Password: "secret"}}}).
		Blob(t.Context(), digest, int64(len(data)), 0, &got); err != nil {
		t.Fatal(err)
	}
	for _, header := range leaked {
		if header != "" {
			t.Errorf("the other host got %q", header)
		}
	}
	if len(leaked) == 0 {
		t.Error("the other host was never asked")
	}
}

func TestWrongPassword(t *testing.T) {
	w := newWorld(t)
	w.User, w.Password = "me", "secret"
	w.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	for name, c := range map[string]keys{"none": nil, "wrong": {w.host: {Username: "me", Password: "secret2"}}} {
		w.Requests()
		_, err := w.repo(t, Options{Credentials: c}).Manifest(t.Context(), "1", accept)
		wantPlainError(t, err, ErrDenied, "nook login "+w.host)
		if n := len(w.Requests()); n > 2 {
			t.Errorf("%s: %d requests for one answer", name, n)
		}
	}
}

func TestBearerTokens(t *testing.T) {
	for name, account := range map[string]Credential{
		"password":       {Username: "me", Password: "secret"},
		"identity token": {IdentityToken: "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.User, w.Password = "me", "secret"
			server := httptest.NewServer(w.Tokens())
			defer server.Close()
			w.Realm = server.URL + "/token"
			w.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
			r := w.repo(t, Options{Credentials: keys{w.host: account}})
			for range 3 {
				if _, err := r.Manifest(t.Context(), "1", accept); err != nil {
					t.Fatal(err)
				}
			}
			if n := w.TokensGiven(); n != 1 {
				t.Errorf("%d tokens for three requests", n)
			}
			for _, req := range w.Requests() {
				if strings.HasPrefix(req.Authorization, "Basic") {
					t.Error("the password went to the registry, not to its token server")
				}
			}
			r = w.repo(t, Options{Credentials: keys{w.host: {Username: "me", Password: "wrong"}}})
			_, err := r.Manifest(t.Context(), "1", accept)
			wantPlainError(t, err, ErrDenied, "incorrect username or password")
		})
	}
}

func TestTokenServersThatLie(t *testing.T) {
	for name, answer := range map[string]string{"empty": `{}`, "a page": "<html>", "a header in it": `{"token":"a\r\nX: y"}`} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, answer) }))
			defer server.Close()
			w.Realm = server.URL
			_, err := w.repo(t, Options{}).Manifest(t.Context(), "1", accept)
			wantPlainError(t, err, ErrProtocol, "without a token")
		})
	}
	w := newWorld(t)
	w.Realm = "file:///etc/passwd"
	_, err := w.repo(t, Options{}).Manifest(t.Context(), "1", accept)
	wantPlainError(t, err, ErrProtocol, "file:///etc/passwd")
}

func TestTLSNeedsACertificateOfItsOwn(t *testing.T) {
	r := testregistry.New()
	r.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	server := httptest.NewTLSServer(r)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	ask := func(o Options) error {
		o.Sleep = func(context.Context, time.Duration) error { return nil }
		c := New(o)
		defer c.Close()
		repo, err := c.Repository(host, "app")
		if err != nil {
			return err
		}
		_, err = repo.Manifest(t.Context(), "1", accept)
		return err
	}
	if err := ask(Options{}); err != nil {
		t.Errorf("on loopback any certificate will do: %v", err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, host), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, host, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.crt", []byte("nothing"))
	wantPlainError(t, ask(Options{CertDirs: []string{dir}}), nil, "no PEM certificate")
	write("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	if err := ask(Options{CertDirs: []string{dir}}); err != nil {
		t.Errorf("with its CA: %v", err)
	}
	other := httptest.NewUnstartedServer(r)
	other.StartTLS()
	other.Close()
	// One who names a CA wants it checked: another one's isn't taken.
	write("ca.crt", otherCA(t))
	wantPlainError(t, ask(Options{CertDirs: []string{dir}}), nil, "certs.d")
}

func TestMirrorsAreAskedFirst(t *testing.T) {
	main, mirror := newWorld(t), newWorld(t)
	for _, w := range []*world{main, mirror} {
		w.AddManifest("app", "both", testregistry.TypeManifest, []byte("{}"))
	}
	main.AddManifest("app", "new", testregistry.TypeManifest, []byte("{}"))
	mirror.AddManifest("copy/app", "both", testregistry.TypeManifest, []byte("{}"))
	config, err := parseConfig(fmt.Appendf(nil, "[[registry]]\nlocation=%q\n[[registry.mirror]]\nlocation=\"127.0.0.1:1\"\n[[registry.mirror]]\nlocation=%q\n",
		main.host, mirror.host+"/copy"))
	if err != nil {
		t.Fatal(err)
	}
	r := main.repo(t, Options{Config: config})
	for _, tag := range []string{"both", "new"} {
		if _, err := r.Manifest(t.Context(), tag, accept); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
	}
	if n := testregistry.Count(main.Requests(), "GET /v2/app/manifests/both"); n != 0 {
		t.Error("the registry was asked for what its mirror has")
	}
	_, err = r.Manifest(t.Context(), "nosuch", accept)
	wantPlainError(t, err, ErrNotFound, main.host)
}

func TestTagsOfManyPages(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.AddManifest("app", fmt.Sprint("v", i), testregistry.TypeManifest, fmt.Appendf(nil, "{%d", i))
	}
	tags, err := w.repo(t, Options{}).Tags(t.Context())
	if err != nil || len(tags) != 7 {
		t.Errorf("tags %v, %v", tags, err)
	}
}
