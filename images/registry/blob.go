package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// progressBytes is how much has to come for attempts to be counted anew.
const progressBytes = 1 << 20

// copyBuffer is what is read of a connection at once.
const copyBuffer = 256 << 10

// Blob writes to w what is missing of a blob of size bytes, from offset on. A
// connection that breaks is taken up where it broke; w gets each byte once, in
// order, and never more than there should be. The digest is the caller's to
// compare: it has the bytes before offset.
func (r *Repository) Blob(ctx context.Context, digest string, size, offset int64, w io.Writer) error {
	err := r.ask(ctx, func(p place) error {
		d := download{place: p, digest: digest, size: size, at: offset, w: w}
		err := d.run(ctx)
		offset = d.at
		return err
	})
	return advise(err, r.registry)
}

// download is a blob on its way from one place.
type download struct {
	place
	digest string
	size   int64
	at     int64 // how much w has
	w      io.Writer
	buf    []byte
}

func (d *download) run(ctx context.Context) error {
	d.buf = make([]byte, copyBuffer)
	since := d.at
	for attempt := 1; d.at < d.size; attempt++ {
		err := d.attempt(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !Temporary(err) {
			return err
		}
		if d.at-since >= progressBytes {
			since, attempt = d.at, 1
		}
		if attempt >= maxAttempts {
			return fmt.Errorf("%s broke off at %d of %d bytes, %d times: %w", d.digest, d.at, d.size, attempt, err)
		}
		if err := d.client.pause(ctx, attempt, err); err != nil {
			return err
		}
	}
	return nil
}

// attempt asks once for what is missing.
func (d *download) attempt(ctx context.Context) error {
	c := call{method: http.MethodGet, path: "/v2/" + d.path + "/blobs/" + d.digest, scope: pullScope(d.path), once: true}
	if d.at > 0 {
		c.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", d.at)}}
	}
	resp, err := d.do(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	skip, err := d.start(resp)
	if err != nil {
		return err
	}
	if whole := d.size - d.at + skip; resp.ContentLength >= 0 && resp.ContentLength != whole {
		return fmt.Errorf("%w: %s has %d bytes and should have %d", ErrSize, d.digest, resp.ContentLength-skip+d.at, d.size)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return d.copy(ctx, resp.Body)
}

// start looks where an answer begins: it says how much of it is known already,
// because the registry doesn't know ranges.
func (d *download) start(resp *http.Response) (skip int64, err error) {
	switch resp.StatusCode {
	case http.StatusOK:
		return d.at, nil
	case http.StatusPartialContent:
		if first, ok := rangeStart(resp.Header.Get("Content-Range")); !ok || first != d.at {
			return 0, fmt.Errorf("%w: asked for %s from byte %d, it sends %q",
				ErrProtocol, d.digest, d.at, oneLine(resp.Header.Get("Content-Range")))
		}
		return 0, nil
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, fmt.Errorf("%w: %s has no byte %d and should have %d", ErrSize, d.digest, d.at, d.size)
	}
	return 0, fmt.Errorf("%w: %d for a blob", ErrProtocol, resp.StatusCode)
}

// rangeStart reads "bytes 100-199/200".
func rangeStart(header string) (int64, bool) {
	rest, found := strings.CutPrefix(header, "bytes ")
	first, _, dash := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, found && dash && err == nil
}

func (d *download) copy(ctx context.Context, body io.Reader) error {
	for {
		n, err := body.Read(d.buf)
		if int64(n) > d.size-d.at {
			return fmt.Errorf("%w: %s goes on after its %d bytes", ErrSize, d.digest, d.size)
		}
		if n > 0 {
			if _, err := d.w.Write(d.buf[:n]); err != nil {
				return final{err}
			}
			d.at += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF) && d.at == d.size:
			return nil
		case err != nil:
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return fmt.Errorf("%w: %w", errBroken, err)
		}
	}
}
