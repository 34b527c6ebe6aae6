package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"nook/internal/hint"
)

// Upload is a blob to be sent.
type Upload struct {
	Digest string
	Size   int64
	// Open gives the blob from offset on, once an attempt.
	Open func(offset int64) (io.ReadCloser, error)
	// From are repositories of the same registry that may have it: paths.
	From []string
}

// Sent is how a blob came to be in a repository.
type Sent int

// What Push does to a blob, the cheapest first.
const (
	Existed Sent = iota
	Mounted
	Uploaded
)

func pushScope(path string) string { return "repository:" + path + ":pull,push" }

// Has says whether the repository itself, not a mirror, has a blob.
func (r *Repository) Has(ctx context.Context, digest string) (bool, error) {
	p := r.registryPlace()
	resp, err := p.do(ctx, call{method: http.MethodHead, path: "/v2/" + p.path + "/blobs/" + digest, scope: pushScope(p.path)})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, advise(err, r.registry)
	}
	discard(resp)
	return true, nil
}

// Push brings a blob into the repository: not at all where it is there, by a
// mount where another repository of the registry has it, else by an upload.
// What of an upload arrived before a connection broke is not sent again where
// the registry says how much that was.
func (r *Repository) Push(ctx context.Context, u Upload) (Sent, error) {
	there, err := r.Has(ctx, u.Digest)
	if err != nil || there {
		return Existed, err
	}
	p := r.registryPlace()
	for _, from := range u.From {
		location, mounted, err := p.begin(ctx, u.Digest, from)
		if err == nil && mounted {
			return Mounted, nil
		}
		if err == nil {
			// The registry began an upload instead of a mount.
			return Uploaded, advise(p.send(ctx, u, location), r.registry)
		}
		if ctx.Err() != nil {
			return Uploaded, context.Cause(ctx)
		}
		// A mount that is refused, as from a repository one may not read, is
		// none; the upload will tell of other troubles.
	}
	return Uploaded, advise(p.send(ctx, u, ""), r.registry)
}

// begin starts an upload, or mounts from another repository.
func (p place) begin(ctx context.Context, digest, from string) (location string, mounted bool, err error) {
	c := call{method: http.MethodPost, path: "/v2/" + p.path + "/blobs/uploads/", scope: pushScope(p.path)}
	if from != "" {
		c.path += "?" + url.Values{"mount": {digest}, "from": {from}}.Encode()
		c.scope += " " + pullScope(from)
	}
	resp, err := p.do(ctx, c)
	if err != nil {
		return "", false, err
	}
	discard(resp)
	if resp.StatusCode == http.StatusCreated {
		return "", true, nil
	}
	location, err = p.location(resp)
	return location, false, err
}

// location is where an upload goes on. It may be another host's, which then
// gets no credentials; follow sees to that only for redirects.
func (p place) location(resp *http.Response) (string, error) {
	target, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || target.Scheme == "http" && resp.Request.URL.Scheme == "https" && !p.lenient {
		return "", fmt.Errorf("%w: %s sends an upload to %q", ErrProtocol, p.address, oneLine(resp.Header.Get("Location")))
	}
	return target.String(), nil
}

// send uploads. Each attempt begins where the registry says that the last one
// ended, or from the beginning.
func (p place) send(ctx context.Context, u Upload, location string) error {
	var offset int64
	for attempt := 1; ; attempt++ {
		var err error
		if location == "" {
			offset = 0
			location, _, err = p.begin(ctx, u.Digest, "")
		}
		if err == nil {
			err = p.put(ctx, u, location, offset)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// One that didn't begin was attempted often enough.
		if attempt == maxAttempts || !Temporary(err) || location == "" {
			return fmt.Errorf("upload %s: %w", u.Digest, err)
		}
		if err := p.client.pause(ctx, attempt, err); err != nil {
			return err
		}
		location, offset = p.resume(ctx, location)
	}
}

// put sends the rest of a blob and ends the upload.
func (p place) put(ctx context.Context, u Upload, location string, offset int64) error {
	if offset < u.Size || u.Size == 0 {
		c := call{
			method: http.MethodPatch, path: location, scope: pushScope(p.path), once: true, size: u.Size - offset,
			header: http.Header{"Content-Type": {"application/octet-stream"}},
			body:   func() (io.ReadCloser, error) { return u.Open(offset) },
		}
		if offset > 0 {
			c.header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, u.Size-1))
		}
		resp, err := p.do(ctx, c)
		if refusesPatch(err) {
			return p.finish(ctx, u, location, true)
		}
		if err != nil {
			return err
		}
		discard(resp)
		if location, err = p.location(resp); err != nil {
			return err
		}
	}
	return p.finish(ctx, u, location, false)
}

// refusesPatch knows registries that take a blob in one piece only.
func refusesPatch(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (status.Code == http.StatusMethodNotAllowed || status.Code == http.StatusNotImplemented)
}

// finish ends an upload, with the blob in the same request when whole is true.
func (p place) finish(ctx context.Context, u Upload, location string, whole bool) error {
	target, err := url.Parse(location)
	if err != nil {
		return fmt.Errorf("%w: an upload goes to %q", ErrProtocol, oneLine(location))
	}
	// What is there may be signed: the digest comes behind it.
	if target.RawQuery != "" {
		target.RawQuery += "&"
	}
	target.RawQuery += "digest=" + url.QueryEscape(u.Digest)
	c := call{
		method: http.MethodPut, path: target.String(), scope: pushScope(p.path), once: true,
		body: func() (io.ReadCloser, error) { return http.NoBody, nil },
	}
	if whole {
		c.size, c.body = u.Size, func() (io.ReadCloser, error) { return u.Open(0) }
		c.header = http.Header{"Content-Type": {"application/octet-stream"}}
	}
	resp, err := p.do(ctx, c)
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}

// resume asks how much of an upload arrived; "" means that a new one begins.
func (p place) resume(ctx context.Context, location string) (next string, offset int64) {
	resp, err := p.do(ctx, call{method: http.MethodGet, path: location, scope: pushScope(p.path), once: true})
	if err != nil {
		return "", 0
	}
	discard(resp)
	_, last, found := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !found || err != nil || n <= 0 {
		return "", 0
	}
	if next, err = p.location(resp); err != nil {
		return "", 0
	}
	return next, n + 1
}

// PushManifest puts a manifest under a tag or its digest. Registries keep what
// they get byte for byte, so its digest is theirs.
func (r *Repository) PushManifest(ctx context.Context, reference, mediaType string, body []byte) error {
	p := r.registryPlace()
	resp, err := p.do(ctx, call{
		method: http.MethodPut, path: "/v2/" + p.path + "/manifests/" + reference, scope: pushScope(p.path),
		header: http.Header{"Content-Type": {mediaType}}, size: int64(len(body)),
		body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(body))), nil },
	})
	var status *StatusError
	if errors.As(err, &status) && status.Code == http.StatusBadRequest && strings.Contains(strings.Join(status.codes, " "), "MANIFEST_INVALID") {
		err = hint.Wrap(err, "an old registry may not know this type of manifest")
	}
	if err != nil {
		return advise(err, r.registry)
	}
	discard(resp)
	return nil
}
