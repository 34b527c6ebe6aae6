package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"nook/internal/hint"
)

// MaxManifest is how long a manifest may be, in bytes: the specification asks
// registries to take 4 MiB.
const MaxManifest = 4 << 20

// Repository is one in a registry, wherever that is.
type Repository struct {
	client   *Client
	registry string
	name     string // for errors
	places   []place

	mu   sync.Mutex
	best int // the place that has what was asked for first
}

// place is a repository at one of its endpoints.
type place struct {
	*host
	path string
}

// Repository gives one of a registry: docker.io and library/busybox.
func (c *Client) Repository(registry, path string) (*Repository, error) {
	r := &Repository{client: c, registry: registry, name: registry + "/" + path}
	for _, e := range c.opts.Config.endpoints(registry, path) {
		if e.blocked {
			return nil, hint.Errorf("the registries configuration says blocked = true", "%s: %w", r.name, ErrBlocked)
		}
		if e.address == "" || e.path == "" {
			return nil, fmt.Errorf("%s: the registries configuration leads to %q", r.name, e.address+"/"+e.path)
		}
		name := registry
		if e.address != registry {
			name = e.address // credentials are those of where it is
		}
		r.places = append(r.places, place{c.host(name, e.address, e.insecure), e.path})
	}
	return r, nil
}

// registryPlace is the registry itself, where pushes go.
func (r *Repository) registryPlace() place { return r.places[len(r.places)-1] }

// ask tries the places in turn, the one that answered before first.
func (r *Repository) ask(ctx context.Context, f func(place) error) error {
	r.mu.Lock()
	best := r.best
	r.mu.Unlock()
	var first error
	for i := range r.places {
		n := (best + i) % len(r.places)
		err := f(r.places[n])
		if err == nil {
			r.mu.Lock()
			r.best = n
			r.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil || isFinal(err) {
			return err
		}
		// The registry itself is who a person asked for.
		if first == nil || n == len(r.places)-1 {
			first = err
		}
	}
	return first
}

// final is an error that no other place would mend.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

func isFinal(err error) bool {
	var f final
	return errors.As(err, &f)
}

func pullScope(path string) string { return "repository:" + path + ":pull" }

// Manifest is a document that a tag or a digest names.
type Manifest struct {
	MediaType string
	Digest    string // sha256 of Body
	Body      []byte
}

// Manifest fetches what reference, a tag or a digest, names. The accepted media
// types are offered in this order. A digest is compared with what came.
func (r *Repository) Manifest(ctx context.Context, reference string, accept []string) (Manifest, error) {
	var m Manifest
	err := r.ask(ctx, func(p place) error {
		return p.retry(ctx, func() (err error) {
			m, err = p.manifest(ctx, reference, accept)
			return err
		})
	})
	if errors.Is(err, ErrNotFound) {
		err = hint.Wrap(err, "are the name and the tag right?")
	}
	return m, advise(err, r.registry)
}

func (p place) manifest(ctx context.Context, reference string, accept []string) (Manifest, error) {
	resp, err := p.do(ctx, call{
		method: http.MethodGet, path: "/v2/" + p.path + "/manifests/" + reference,
		header: http.Header{"Accept": accept}, scope: pullScope(p.path), once: true,
	})
	if err != nil {
		return Manifest{}, err
	}
	defer resp.Body.Close()
	if resp.ContentLength > MaxManifest {
		return Manifest{}, fmt.Errorf("%w: a manifest of %d bytes, over %d", ErrSize, resp.ContentLength, MaxManifest)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: read a manifest: %w", p.address, err)
	}
	if len(body) > MaxManifest {
		return Manifest{}, fmt.Errorf("%w: a manifest of over %d bytes", ErrSize, MaxManifest)
	}
	sum := sha256.Sum256(body)
	m := Manifest{MediaType: mediaType(resp.Header, body), Digest: "sha256:" + hex.EncodeToString(sum[:]), Body: body}
	announced := resp.Header.Get("Docker-Content-Digest")
	for _, want := range []string{announced, reference} {
		if strings.HasPrefix(want, "sha256:") && want != m.Digest {
			return Manifest{}, fmt.Errorf("%w: the manifest has %s and should have %s", ErrDigest, m.Digest, oneLine(want))
		}
	}
	return m, nil
}

// mediaType is that of a manifest: the header's, or where a server that only
// keeps files knows none, what the document says of itself.
func mediaType(header http.Header, body []byte) string {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err == nil && strings.HasPrefix(kind, "application/vnd.") {
		return kind
	}
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(body, &doc) == nil && doc.MediaType != "" {
		return doc.MediaType
	}
	return kind
}

// Tags lists the tags of the repository.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	var tags []string
	err := r.ask(ctx, func(p place) (err error) {
		tags, err = p.tags(ctx)
		return err
	})
	return tags, advise(err, r.registry)
}

func (p place) tags(ctx context.Context) ([]string, error) {
	var all []string
	err := p.pages(ctx, call{method: http.MethodGet, path: "/v2/" + p.path + "/tags/list", scope: pullScope(p.path)}, "tags", func(data []byte) (int, error) {
		var page struct {
			Tags []string `json:"tags"`
		}
		err := json.Unmarshal(data, &page)
		all = append(all, page.Tags...)
		return len(page.Tags), err
	})
	return all, err
}
