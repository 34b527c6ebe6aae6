// Package testregistry is an image registry in memory, for tests: the API of
// the OCI distribution specification, with and without passwords, that keeps
// what it was asked and can be made to lie.
//
//	r := testregistry.New()
//	server := httptest.NewServer(r)
//	digest, err := r.AddImage("app", "1", img)
//	r.Lie = func(w http.ResponseWriter, req *http.Request) bool { … } // true: it answered
//
// It shares no code with what it tests.
package testregistry

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"nook/internal/testenv/testimage"
)

// Media types, spelt out here.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
)

// Request is one that the registry got.
type Request struct {
	Method        string
	Path          string // with the query
	Range         string
	Authorization string
}

func (r Request) String() string { return strings.TrimSpace(r.Method + " " + r.Path + " " + r.Range) }

// Registry is an http.Handler. Its fields may be set before it serves, and the
// methods called at any time.
type Registry struct {
	// Lie, if set, may answer in the registry's place.
	Lie func(w http.ResponseWriter, r *http.Request) bool
	// User and Password, if set, let in. Realm, if set, is a token server that
	// gives bearer tokens for them: see Tokens.
	User, Password string
	Realm          string

	mu        sync.Mutex
	blobs     map[string][]byte
	linked    map[string]map[string]bool // repository: digests
	manifests map[string]map[string]Manifest
	uploads   map[string]*upload
	requests  []Request
	tokens    int
}

// Manifest is a document under a tag or a digest.
type Manifest struct {
	Type string
	Body []byte
}

// New is an empty registry.
func New() *Registry {
	return &Registry{
		blobs: map[string][]byte{}, linked: map[string]map[string]bool{},
		manifests: map[string]map[string]Manifest{}, uploads: map[string]*upload{},
	}
}

// Clear makes it empty.
func (r *Registry) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.blobs)
	clear(r.linked)
	clear(r.manifests)
	clear(r.uploads)
}

// Digest is the sha256 digest of data as images spell it.
func Digest(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// AddBlob puts a blob into a repository.
func (r *Registry) AddBlob(repo string, data []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addBlob(repo, data)
}

func (r *Registry) addBlob(repo string, data []byte) string {
	digest := Digest(data)
	r.blobs[digest] = data
	if r.linked[repo] == nil {
		r.linked[repo] = map[string]bool{}
	}
	r.linked[repo][digest] = true
	return digest
}

// AddManifest puts a document under its digest and, unless that is "", a tag.
func (r *Registry) AddManifest(repo, tag, mediaType string, body []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest := Digest(body)
	if r.manifests[repo] == nil {
		r.manifests[repo] = map[string]Manifest{}
	}
	r.manifests[repo][digest] = Manifest{mediaType, body}
	if tag != "" {
		r.manifests[repo][tag] = Manifest{mediaType, body}
	}
	return digest
}

// AddImage puts an image into a repository and returns its manifest's digest.
func (r *Registry) AddImage(repo, tag string, img testimage.Image) (string, error) {
	if img.Name == "" {
		img.Name = "x:1"
	}
	var archive bytes.Buffer
	if err := img.WriteOCI(&archive); err != nil {
		return "", err
	}
	var index struct {
		Manifests []struct{ Digest, MediaType string }
	}
	blobs := map[string][]byte{}
	for tr := tar.NewReader(&archive); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return "", err
		}
		switch {
		case h.Name == "index.json":
			if err := json.Unmarshal(data, &index); err != nil {
				return "", err
			}
		case strings.HasPrefix(h.Name, "blobs/sha256/"):
			blobs["sha256:"+path.Base(h.Name)] = data
		}
	}
	main := index.Manifests[0]
	for digest, data := range blobs {
		if digest != main.Digest {
			r.AddBlob(repo, data)
		}
	}
	return r.AddManifest(repo, tag, main.MediaType, blobs[main.Digest]), nil
}

// Entry is an image in an index.
type Entry struct{ Digest, OS, Arch, Variant string }

// AddIndex puts an index of images of the repository under a tag.
func (r *Registry) AddIndex(repo, tag string, entries ...Entry) string {
	type platform struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant,omitempty"`
	}
	type descriptor struct {
		MediaType string    `json:"mediaType"`
		Digest    string    `json:"digest"`
		Size      int       `json:"size"`
		Platform  *platform `json:"platform,omitempty"`
	}
	var list []descriptor
	for _, e := range entries {
		m, _ := r.Manifest(repo, e.Digest)
		d := descriptor{m.Type, e.Digest, len(m.Body), nil}
		if e.OS != "" {
			d.Platform = &platform{e.OS, e.Arch, e.Variant}
		}
		list = append(list, d)
	}
	body, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": TypeIndex, "manifests": list})
	return r.AddManifest(repo, tag, TypeIndex, body)
}

// Manifest is what a tag or digest names.
func (r *Registry) Manifest(repo, ref string) (Manifest, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, found := r.manifests[repo][ref]
	return m, found
}

// Blob is a blob of a repository.
func (r *Registry) Blob(repo, digest string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.linked[repo][digest] {
		return nil, false
	}
	return r.blobs[digest], true
}

// Requests are those that were made since the last call.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.requests
	r.requests = nil
	return list
}

// Count says how many requests, of those given, begin with prefix.
func Count(list []Request, prefix string) int {
	n := 0
	for _, r := range list {
		if strings.HasPrefix(r.String(), prefix) {
			n++
		}
	}
	return n
}

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, Request{req.Method, req.URL.RequestURI(), req.Header.Get("Range"), req.Header.Get("Authorization")})
	r.mu.Unlock()
	if r.Lie != nil && r.Lie(w, req) {
		return
	}
	r.Serve(w, req)
}

// Serve answers truly, whatever Lie would.
func (r *Registry) Serve(w http.ResponseWriter, req *http.Request) {
	if !r.allowed(w, req) {
		return
	}
	rest, found := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case !found:
		http.NotFound(w, req)
	case rest == "":
		w.WriteHeader(http.StatusOK)
	case rest == "_catalog":
		r.catalog(w, req)
	case strings.HasSuffix(rest, "/tags/list"):
		r.tags(w, req, strings.TrimSuffix(rest, "/tags/list"))
	default:
		r.object(w, req, rest)
	}
}

func (r *Registry) object(w http.ResponseWriter, req *http.Request, rest string) {
	for _, kind := range []string{"/manifests/", "/blobs/uploads/", "/blobs/"} {
		i := strings.LastIndex(rest, kind)
		if i < 0 {
			continue
		}
		repo, ref := rest[:i], rest[i+len(kind):]
		switch {
		case kind == "/manifests/" && req.Method == http.MethodPut:
			r.putManifest(w, req, repo, ref)
		case kind == "/manifests/":
			m, found := r.Manifest(repo, ref)
			if !found {
				Fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
				return
			}
			w.Header().Set("Content-Type", m.Type)
			w.Header().Set("Docker-Content-Digest", Digest(m.Body))
			_, _ = w.Write(m.Body)
		case kind == "/blobs/uploads/":
			r.upload(w, req, repo, ref)
		default:
			data, found := r.Blob(repo, ref)
			if !found {
				Fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
				return
			}
			SendBlob(w, req, data)
		}
		return
	}
	http.NotFound(w, req)
}

// Fail is an error as the specification has it.
func Fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// SendBlob answers with a blob, or a range of it.
func SendBlob(w http.ResponseWriter, req *http.Request, data []byte) {
	first := 0
	if n, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &first); n == 1 && err == nil {
		if first >= len(data) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(data)-1, len(data)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)-first))
	if first > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	if req.Method != http.MethodHead {
		_, _ = w.Write(data[first:])
	}
}

func (r *Registry) tags(w http.ResponseWriter, req *http.Request, repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var tags []string
	for ref := range r.manifests[repo] {
		if !strings.Contains(ref, ":") && ref > req.URL.Query().Get("last") {
			tags = append(tags, ref)
		}
	}
	tags = page(w, "/v2/"+repo+"/tags/list", tags)
	_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
}

func (r *Registry) catalog(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var repos []string
	for repo := range r.manifests {
		if repo > req.URL.Query().Get("last") {
			repos = append(repos, repo)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"repositories": page(w, "/v2/_catalog", repos)})
}

// page is the first of a list's pages, of two each.
func page(w http.ResponseWriter, path string, list []string) []string {
	slices.Sort(list)
	if len(list) > 2 {
		list = list[:2]
		w.Header().Set("Link", fmt.Sprintf(`<%s?last=%s>; rel="next"`, path, list[1]))
	}
	return list
}
