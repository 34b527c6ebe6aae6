package testregistry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, repo, ref string) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	var m struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(body, &m); err != nil {
		Fail(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	need := []string{m.Config.Digest}
	for _, l := range m.Layers {
		need = append(need, l.Digest)
	}
	for _, digest := range need {
		if _, found := r.Blob(repo, digest); !found && digest != "" {
			Fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "blob unknown: "+digest)
			return
		}
	}
	tag := ref
	if strings.Contains(ref, ":") {
		tag = ""
	}
	digest := r.AddManifest(repo, tag, req.Header.Get("Content-Type"), body)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}

// upload is a blob on its way.
type upload struct {
	mu  sync.Mutex
	got bytes.Buffer
}

// upload serves what is below /blobs/uploads/: POST begins, or mounts; PATCH
// adds; GET tells how much there is; PUT ends.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, repo, id string) {
	q := req.URL.Query()
	if req.Method == http.MethodPost {
		if data, found := r.Blob(q.Get("from"), q.Get("mount")); found {
			r.AddBlob(repo, data)
			w.WriteHeader(http.StatusCreated)
			return
		}
		r.mu.Lock()
		id = fmt.Sprintf("upload-%d", len(r.uploads))
		r.uploads[id] = new(upload)
		r.mu.Unlock()
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=x")
		w.WriteHeader(http.StatusAccepted)
		return
	}
	r.mu.Lock()
	u := r.uploads[id]
	r.mu.Unlock()
	if u == nil {
		Fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
		return
	}
	// A request that broke may still be read when the next one comes.
	u.mu.Lock()
	defer u.mu.Unlock()
	buffer := &u.got
	if first := strings.SplitN(req.Header.Get("Content-Range"), "-", 2)[0]; first != "" && first != fmt.Sprint(buffer.Len()) {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	_, err := buffer.ReadFrom(req.Body)
	if err != nil {
		return // what came stays
	}
	w.Header().Set("Location", req.URL.RequestURI())
	w.Header().Set("Range", fmt.Sprintf("0-%d", buffer.Len()-1))
	if req.Method != http.MethodPut {
		status := http.StatusAccepted
		if req.Method == http.MethodGet {
			status = http.StatusNoContent
		}
		w.WriteHeader(status)
		return
	}
	if Digest(buffer.Bytes()) != q.Get("digest") {
		Fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		return
	}
	r.AddBlob(repo, bytes.Clone(buffer.Bytes()))
	w.WriteHeader(http.StatusCreated)
}

// allowed asks for a password, or for a token.
func (r *Registry) allowed(w http.ResponseWriter, req *http.Request) bool {
	if r.User == "" && r.Realm == "" {
		return true
	}
	if r.Realm == "" {
		user, password, _ := req.BasicAuth()
		if user == r.User && password == r.Password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return false
	}
	scope := ""
	if repo, _, found := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/blobs/"); found {
		scope = "repository:" + repo + ":pull"
	} else if repo, _, found := strings.Cut(strings.TrimPrefix(req.URL.Path, "/v2/"), "/manifests/"); found {
		scope = "repository:" + repo + ":pull"
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		scope += ",push"
	}
	if granted, found := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); found && strings.HasPrefix(granted, "ok|") &&
		strings.HasPrefix(strings.TrimPrefix(granted, "ok|"), scope) {
		return true
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="test",scope="%s"`, r.Realm, scope))
	Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

// Tokens is a token server for the registry: it gives whoever knows the
// password, or everyone where there is none, what they ask for.
func (r *Registry) Tokens() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_ = req.ParseForm()
		user, password, _ := req.BasicAuth()
		if r.User != "" && (user != r.User || password != r.Password) && req.Form.Get("refresh_token") != r.Password {
			Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
			return
		}
		r.mu.Lock()
		r.tokens++
		r.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"token": "ok|" + req.Form.Get("scope"), "expires_in": 300})
	})
}

// TokensGiven says how many tokens were given.
func (r *Registry) TokensGiven() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tokens
}
