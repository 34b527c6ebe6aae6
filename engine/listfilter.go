package engine

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"nook/containers"
	"nook/images/layers"
	"nook/internal/hint"
)

// ErrFilter says that a filter is not one.
var ErrFilter = errors.New("invalid filter")

// listFilter is what docker's daemon/list.go makes of the filters: each of
// them must hold.
type listFilter struct {
	all   bool
	last  int
	tests []func(*record) bool
}

func (f *listFilter) apply(list []record) []record {
	var out []record
	for _, r := range list {
		if f.last > 0 && len(out) == f.last {
			break
		}
		if f.all || f.last > 0 || r.state.Status.Live() {
			if !slices.ContainsFunc(f.tests, func(test func(*record) bool) bool { return !test(&r) }) {
				out = append(out, r)
			}
		}
	}
	return out
}

// filter reads the filters. Those about an image or another container look it
// up once.
func (e *Engine) filter(o ListOptions) (*listFilter, error) {
	f := &listFilter{all: o.All, last: o.Last}
	for _, key := range slices.Sorted(maps.Keys(o.Filters)) {
		values := o.Filters[key]
		var test func(*record) bool
		var err error
		switch key {
		case "id":
			test = matching(values, func(r *record) string { return r.ID })
		case "name":
			test = matchingName(values)
		case "label":
			test = func(r *record) bool { return hasLabels(r.Labels, values) }
		case "status":
			f.all = true
			test, err = oneOf(key, values, statuses(), func(r *record) string { return string(r.state.Status) })
		case "health":
			test, err = oneOf(key, values, []string{"none", "starting", "healthy", "unhealthy"}, health)
		case "exited":
			f.all = true
			test, err = exitedWith(values)
		case "before", "since":
			test, err = e.besides(key == "before", values)
		case "ancestor":
			test, err = e.descendants(values)
		case "volume":
			test = func(r *record) bool { return mountsOneOf(r, values) }
		case "network":
			test = func(r *record) bool { return slices.Contains(values, r.Network) }
		case "publish", "expose":
			err = hint.Errorf("published ports come later", "filter %s: not there yet: %w", key, ErrFilter)
		default:
			err = hint.Errorf("ancestor, before, exited, health, id, label, name, network, since, status and volume are known",
				"filter %q: %w", key, ErrFilter)
		}
		if err != nil {
			return nil, err
		}
		f.tests = append(f.tests, test)
	}
	return f, nil
}

func statuses() []string {
	return []string{"created", "restarting", "running", "removing", "paused", "exited", "dead"}
}

// health is what docker calls a container without a check, or one that isn't
// checked any more.
func health(r *record) string {
	if r.state.Health == nil {
		return "none"
	}
	return r.state.Health.Status
}

// matching matches as docker's filters.Args.Match: the value itself, or a
// regular expression that is found anywhere. One that is none matches nothing.
func matching(values []string, of func(*record) string) func(*record) bool {
	var patterns []*regexp.Regexp
	for _, v := range values {
		if p, err := regexp.Compile(v); err == nil {
			patterns = append(patterns, p)
		}
	}
	return func(r *record) bool {
		text := of(r)
		return slices.Contains(values, text) ||
			slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(text) })
	}
}

// matchingName takes names with docker's slash before them too: ^/web$.
func matchingName(values []string) func(*record) bool {
	plain := matching(values, func(r *record) string { return r.Name })
	slashed := matching(values, func(r *record) string { return "/" + r.Name })
	return func(r *record) bool { return plain(r) || slashed(r) }
}

// hasLabels tells whether all of wanted, KEY or KEY=VALUE, are there.
func hasLabels(labels map[string]string, wanted []string) bool {
	for _, w := range wanted {
		key, value, hasValue := strings.Cut(w, "=")
		if got, ok := labels[key]; !ok || hasValue && got != value {
			return false
		}
	}
	return true
}

func oneOf(key string, values, known []string, of func(*record) string) (func(*record) bool, error) {
	for _, v := range values {
		if !slices.Contains(known, v) {
			return nil, hint.Errorf(strings.Join(known, ", ")+" are known", "filter %s=%s: %w", key, v, ErrFilter)
		}
	}
	return func(r *record) bool { return slices.Contains(values, of(r)) }, nil
}

func exitedWith(values []string) (func(*record) bool, error) {
	var codes []int
	for _, v := range values {
		code, err := strconv.Atoi(v)
		if err != nil {
			return nil, hint.Errorf("an exit code is a number", "filter exited=%s: %w", v, ErrFilter)
		}
		codes = append(codes, code)
	}
	return func(r *record) bool {
		return r.state.Status == containers.Exited && slices.Contains(codes, r.state.ExitCode)
	}, nil
}

// besides keeps those that are older than all of the containers that are
// named, or younger.
func (e *Engine) besides(older bool, values []string) (func(*record) bool, error) {
	var others []time.Time
	for _, v := range values {
		ct, err := e.containers.Find(v)
		if err != nil {
			return nil, err
		}
		cfg, err := ct.Config()
		if err != nil {
			return nil, err
		}
		others = append(others, cfg.Created)
	}
	return func(r *record) bool {
		for _, other := range others {
			if older != r.Created.Before(other) || r.Created.Equal(other) {
				return false
			}
		}
		return true
	}, nil
}

// descendants keeps those made from one of the images, or from one that was
// made from it. An image that isn't there has none.
func (e *Engine) descendants(values []string) (func(*record) bool, error) {
	var ids []string
	var chains [][]string
	for _, v := range values {
		ids = append(ids, v) // as it was typed, also when the image is gone
		img, err := e.images.Resolve(v)
		if err != nil {
			continue
		}
		ids = append(ids, img.ID)
		image, err := e.images.Config(img)
		if err != nil {
			return nil, err
		}
		chain, err := e.layers.Chain(image.RootFS.DiffIDs)
		if errors.Is(err, layers.ErrNotUnpacked) {
			continue
		}
		if err != nil {
			return nil, err
		}
		chains = append(chains, topFirst(chain.Keys[chain.Hidden:]))
	}
	return func(r *record) bool {
		if slices.Contains(ids, r.ImageID) || slices.Contains(ids, r.Image) {
			return true
		}
		return slices.ContainsFunc(chains, func(below []string) bool {
			n := len(r.Layers) - len(below)
			return len(below) > 0 && n >= 0 && slices.Equal(r.Layers[n:], below)
		})
	}, nil
}

// mountsOneOf tells whether a source or a target is among values.
func mountsOneOf(r *record, values []string) bool {
	return slices.ContainsFunc(r.Mounts, func(m containers.Mount) bool {
		return m.Source != "" && slices.Contains(values, m.Source) || m.Name != "" && slices.Contains(values, m.Name) ||
			slices.Contains(values, m.Target)
	})
}

// ParseFilters reads the KEY=VALUE of --filter, in docker's form.
func ParseFilters(flags []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, f := range flags {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, hint.Errorf("a filter is KEY=VALUE", "filter %q: %w", f, ErrFilter)
		}
		key = strings.ToLower(strings.TrimSpace(key))
		out[key] = append(out[key], strings.TrimSpace(value))
	}
	return out, nil
}
