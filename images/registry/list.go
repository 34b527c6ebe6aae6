package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"nook/internal/hint"
)

// maxListed bounds what a registry may list, of tags or repositories.
const maxListed = 100_000

// pages makes a call and those that its answers continue with. read is given
// each answer and says how many it lists; what they are is for errors.
func (h *host) pages(ctx context.Context, c call, what string, read func([]byte) (int, error)) error {
	for total := 0; c.path != ""; {
		resp, err := h.do(ctx, c)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest))
		_ = resp.Body.Close()
		if err != nil {
			return fmt.Errorf("%s lists %s: %w", h.address, what, err)
		}
		n, err := read(data)
		if err != nil {
			return fmt.Errorf("%w: %s lists %s: %w", ErrProtocol, h.address, what, err)
		}
		if total += n; total > maxListed {
			return fmt.Errorf("%w: %s lists over %d %s", ErrSize, h.address, maxListed, what)
		}
		if c.path, err = h.nextPage(resp.Header.Get("Link"), n); err != nil {
			return err
		}
	}
	return nil
}

// nextPage reads RFC 5988's <…>; rel="next". A page with nothing ends the list
// whatever it says.
func (h *host) nextPage(link string, count int) (string, error) {
	target, _, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !found || count == 0 || !strings.Contains(link, "next") {
		return "", nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Host != "" && u.Host != h.address {
		return "", fmt.Errorf("%w: %s continues its list at %q", ErrProtocol, h.address, oneLine(target))
	}
	return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String(), nil
}

// ErrNoCatalog says that a registry doesn't tell which repositories it has.
var ErrNoCatalog = errors.New("it offers no list of its repositories")

// Catalog lists the repositories of a registry, as image names have them, in
// order (distribution's HTTP API, "Listing Repositories"). Registries need not
// offer it, and those of many people don't: ErrNoCatalog.
func (c *Client) Catalog(ctx context.Context, registry string) ([]string, error) {
	e := c.opts.Config.registry(registry, "")
	if e.blocked {
		return nil, hint.Errorf("the registries configuration says blocked = true", "%s: %w", registry, ErrBlocked)
	}
	name := registry
	if e.address != registry {
		name = e.address // credentials are those of where it is
	}
	var all []string
	err := c.host(name, e.address, e.insecure).pages(ctx, call{
		method: http.MethodGet, path: "/v2/_catalog?n=1000", scope: "registry:catalog:*",
	}, "repositories", func(data []byte) (int, error) {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		err := json.Unmarshal(data, &page)
		all = append(all, page.Repositories...)
		return len(page.Repositories), err
	})
	var status *StatusError
	if errors.As(err, &status) && status.Code/100 == 4 && status.Code != http.StatusTooManyRequests {
		advice := "it may be only for some: nook login " + registry
		if registry == dockerHub || errors.Is(err, ErrNotFound) {
			advice = "find the name where the registry shows its images, and pull it by that"
		}
		return nil, hint.Wrap(fmt.Errorf("%w: %w", ErrNoCatalog, err), advice)
	}
	if err != nil {
		return nil, advise(err, registry)
	}
	if e.path != "" { // the registry is a part of another
		all = slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, e.path+"/") })
		for i := range all {
			all[i] = strings.TrimPrefix(all[i], e.path+"/")
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
