package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"nook/internal/hint"
)

const (
	maxAttempts  = 5
	maxRedirects = 10
	firstPause   = 500 * time.Millisecond
	longestPause = 30 * time.Second
	// longestWait is what Retry-After is obeyed up to; who asks for more gets
	// told to the person who waits.
	longestWait = 2 * time.Minute
	// maxReason is how much of an error's body is read.
	maxReason = 64 << 10
)

// call is one request, which can be made again.
type call struct {
	method string
	// path is below the host, with its query: /v2/app/manifests/latest. A
	// whole URL is one that the host itself gave.
	path   string
	header http.Header
	scope  string // of the token: repository:app:pull
	// body is opened for each attempt; nil: none.
	body func() (io.ReadCloser, error)
	size int64 // of body
	// once: never attempted again, as the caller knows better how.
	once bool
}

// do makes a call until it succeeds, won't, or was tried often enough. The
// answer is a success (2xx), or 416; its body is the caller's to close.
func (h *host) do(ctx context.Context, c call) (*http.Response, error) {
	if h.tlsErr != nil {
		return nil, h.tlsErr
	}
	var resp *http.Response
	attempt := func() (err error) {
		resp, err = h.try(ctx, c)
		return err
	}
	if c.once {
		err := attempt()
		return resp, err
	}
	err := h.retry(ctx, attempt)
	return resp, err
}

// retry does something until it succeeds, won't, or was tried often enough.
func (h *host) retry(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if attempt == maxAttempts || !h.again(err) {
			return err
		}
		if err := h.client.pause(ctx, attempt, err); err != nil {
			return err
		}
	}
}

// again says whether another attempt makes sense. A host that never answered
// is rather not there than busy.
func (h *host) again(err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Temporary(err) && (h.answered || !unreachable(err))
}

// pause waits before attempt+1: as long as the registry asks, else twice as
// long each time, and not all at the same moment.
func (c *Client) pause(ctx context.Context, attempt int, cause error) error {
	d := min(firstPause<<(attempt-1), longestPause)
	d += rand.N(d / 4)
	var status *StatusError
	if errors.As(cause, &status) && status.wait > 0 {
		if status.wait > longestWait {
			return hint.Errorf(fmt.Sprintf("it asks to wait %s", status.wait.Round(time.Second)), "%w", cause)
		}
		d = status.wait
	}
	return c.opts.Sleep(ctx, d)
}

// try makes a call once, or twice when the first answer is a challenge.
func (h *host) try(ctx context.Context, c call) (*http.Response, error) {
	for challenged := false; ; challenged = true {
		authorization, err := h.authorization(ctx, c.scope)
		if err != nil {
			return nil, err
		}
		resp, err := h.follow(ctx, c, authorization)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			return resp, nil
		}
		failed := h.statusError(resp)
		if resp.StatusCode != http.StatusUnauthorized || challenged {
			return nil, failed
		}
		learnt, err := h.challenged(ctx, resp.Header.Values("WWW-Authenticate"), c.scope, authorization)
		if err != nil {
			return nil, err
		}
		if !learnt {
			return nil, failed
		}
	}
}

// follow sends a call and follows redirects. Credentials go to the host
// itself and nowhere else.
func (h *host) follow(ctx context.Context, c call, authorization string) (*http.Response, error) {
	target, err := h.url(c.path)
	if err != nil {
		return nil, err
	}
	home := url.URL{Scheme: target.Scheme, Host: h.address}
	client := h.http
	if target.Host != home.Host { // an upload's location
		authorization = ""
		if client, err = h.client.elsewhere(target.Host); err != nil {
			return nil, err
		}
	}
	for range maxRedirects {
		resp, err := h.send(ctx, client, c, target, authorization)
		if err != nil {
			return nil, err
		}
		location := resp.Header.Get("Location")
		if !isRedirect(resp.StatusCode) || location == "" {
			return resp, nil
		}
		discard(resp)
		if c.body != nil && resp.StatusCode != http.StatusTemporaryRedirect && resp.StatusCode != http.StatusPermanentRedirect {
			return nil, fmt.Errorf("%w: %s redirects an upload with %d", ErrProtocol, h.address, resp.StatusCode)
		}
		next, err := target.Parse(location)
		if err != nil || next.Host == "" || next.Scheme != "http" && next.Scheme != "https" {
			return nil, fmt.Errorf("%w: %s redirects to %q", ErrProtocol, h.address, oneLine(location))
		}
		if target.Scheme == "https" && next.Scheme == "http" && !h.lenient {
			return nil, fmt.Errorf("%w: %s redirects from https to plain http at %s", ErrProtocol, h.address, next.Host)
		}
		if next.Host == home.Host && next.Scheme == home.Scheme {
			client = h.http
		} else {
			authorization = ""
			if client, err = h.client.elsewhere(next.Host); err != nil {
				return nil, err
			}
		}
		next.User = nil
		target = next
	}
	return nil, fmt.Errorf("%w: %s redirects more than %d times", ErrProtocol, h.address, maxRedirects)
}

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// url is where a path of this host is. Where only trying tells whether it
// speaks TLS, the first call tries both.
func (h *host) url(path string) (*url.URL, error) {
	h.mu.Lock()
	scheme := h.scheme
	h.mu.Unlock()
	if scheme == "" {
		scheme = "https"
	}
	u, err := url.Parse(scheme + "://" + h.address + "/")
	if err == nil {
		u, err = u.Parse(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: address %q", ErrProtocol, oneLine(path))
	}
	return u, nil
}

// send makes one HTTP request. A host of which it isn't known is asked again
// without TLS when it refuses the handshake.
func (h *host) send(ctx context.Context, client *http.Client, c call, target *url.URL, authorization string) (*http.Response, error) {
	resp, err := h.roundTrip(ctx, client, c, target, authorization)
	home := target.Host == h.address
	if !home {
		return resp, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		h.scheme, h.answered = target.Scheme, true
		return resp, nil
	case h.scheme == "https" || target.Scheme != "https" || ctx.Err() != nil || !isPlain(err) && !refused(err, target):
		return nil, err
	}
	target.Scheme = "http"
	plain, plainErr := h.roundTrip(ctx, client, c, target, authorization)
	if plainErr != nil {
		if unreachable(err) {
			return nil, err
		}
		return nil, plainErr
	}
	h.scheme, h.answered = "http", true
	return plain, nil
}

// refused: nobody listens where TLS would be; the port of plain HTTP is
// another one.
func refused(err error, target *url.URL) bool { return target.Port() == "" && unreachable(err) }

func (h *host) roundTrip(ctx context.Context, client *http.Client, c call, target *url.URL, authorization string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, c.method, target.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", h.client.opts.UserAgent)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	if c.body != nil {
		body, err := c.body()
		if err != nil {
			cancel(nil)
			return nil, err
		}
		req.Body, req.ContentLength = body, c.size
		if c.size == 0 {
			_ = body.Close()
			req.Body = http.NoBody
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		return nil, plainly(err, cause)
	}
	resp.Body = h.client.watch(resp.Body, cancel)
	return resp, nil
}

// plainly takes net/http's words off an error: the method, and the URL, whose
// query may have secrets.
func plainly(err, cause error) error {
	if cause != nil {
		return cause
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		host := wrapped.URL
		if u, parseErr := url.Parse(wrapped.URL); parseErr == nil {
			host = u.Host
		}
		if errors.Is(wrapped.Err, io.EOF) {
			return fmt.Errorf("%s: %w", host, errBroken)
		}
		return fmt.Errorf("%s: %w", host, wrapped.Err)
	}
	return err
}

// watch ends a request whose answer stalls, and its context with its body.
func (c *Client) watch(body io.ReadCloser, cancel context.CancelCauseFunc) io.ReadCloser {
	w := &watched{body: body, cancel: cancel, stall: c.opts.Stall}
	w.timer = time.AfterFunc(w.stall, func() {
		w.stalled.Store(true)
		cancel(errStalled)
	})
	return w
}

type watched struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration

	stalled atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	if w.stalled.Load() {
		return n, errStalled
	}
	w.timer.Reset(w.stall)
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	w.cancel(nil)
	return w.body.Close()
}

// discard closes an answer nobody reads; a short one leaves the connection
// usable.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxReason)
	_ = resp.Body.Close()
}

// statusError reads what a registry says of a failure, and closes the answer.
func (h *host) statusError(resp *http.Response) error {
	defer resp.Body.Close()
	e := &StatusError{Host: h.address, Code: resp.StatusCode, wait: retryAfter(resp.Header.Get("Retry-After"))}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	var body struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
		Message string `json:"message"`
		Details string `json:"details"`
	}
	if json.Unmarshal(data, &body) == nil {
		var said []string
		for _, one := range body.Errors {
			e.codes = append(e.codes, one.Code)
			if one.Message == "" {
				one.Message = strings.ToLower(strings.ReplaceAll(one.Code, "_", " "))
			}
			said = append(said, one.Message)
		}
		if len(said) == 0 {
			said = []string{body.Message + body.Details}
		}
		e.Reason = oneLine(strings.Join(said, "; "))
	}
	return e
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(value string) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), time.Second)
	}
	return 0
}
