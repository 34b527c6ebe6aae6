package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
)

// AptProxy is an HTTP proxy for apt that keeps what it fetched in Cache: packages
// are fetched once a machine, lists are asked for again and, where there is no
// network, given as they were.
//
//	proxy, err := testenv.StartAptProxy()
//	nook build --build-arg http_proxy=$URL .
type AptProxy struct {
	URL    string
	dir    string
	server *httptest.Server
}

// StartAptProxy starts one on loopback. Stop ends it.
func StartAptProxy() (*AptProxy, error) {
	cache, err := Cache()
	if err != nil {
		return nil, err
	}
	p := &AptProxy{dir: filepath.Join(cache, "apt")}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	p.URL = p.server.URL
	return p, nil
}

// Stop ends the proxy.
func (p *AptProxy) Stop() { p.server.Close() }

func (p *AptProxy) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.URL.Scheme != "http" {
		http.Error(w, "only for apt", http.StatusNotImplemented)
		return
	}
	file := filepath.Join(p.dir, fmt.Sprintf("%x", sha256.Sum256([]byte(r.URL.String()))))
	_, err := os.Stat(file)
	// What bears a version or a hash in its name never changes.
	for range 3 {
		if err == nil && (strings.Contains(r.URL.Path, "/pool/") || strings.Contains(r.URL.Path, "/by-hash/")) {
			break
		}
		if err = fetch(r, file); err == nil || errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	if in, opened := os.Open(file); opened == nil {
		defer in.Close()
		_, _ = io.Copy(w, in)
		return
	}
	http.Error(w, fmt.Sprint(err), http.StatusBadGateway)
}

// fetch keeps an answer in a file, whole or not at all.
func fetch(r *http.Request, file string) error {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.URL.String(), http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", r.URL, fs.ErrNotExist)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", r.URL, answer.Status)
	}
	out, err := os.CreateTemp(filepath.Dir(file), "part")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, answer.Body)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), file)
}
