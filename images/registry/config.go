package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"nook/internal/hint"
)

// Config says where registries are, in the format that podman's and skopeo's
// users know, containers-registries.conf(5), of which this much is read:
//
//	[[registry]]
//	prefix = "docker.io/team"          # which images; default: the location
//	location = "registry.lan:5000/hub" # where they are
//	insecure = true                    # plain HTTP, any certificate
//	blocked = true
//
//	[[registry.mirror]]                # asked first, in this order
//	location = "mirror.lan"
//	insecure = false
//
//	[aliases]
//	"tool" = "registry.lan/team/tool"
//
// What else the format has is left alone, as another program may read the
// same file.
type Config struct {
	Registries []Location        `toml:"registry"`
	Aliases    map[string]string `toml:"aliases"`
}

// Location is one [[registry]].
type Location struct {
	Prefix   string   `toml:"prefix"`
	Location string   `toml:"location"`
	Insecure bool     `toml:"insecure"`
	Blocked  bool     `toml:"blocked"`
	Mirrors  []Mirror `toml:"mirror"`
}

// Mirror is one [[registry.mirror]].
type Mirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
}

// ReadConfig reads the first of files that is there; the rest say nothing.
func ReadConfig(files ...string) (*Config, error) {
	for _, name := range files {
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read registries configuration: %w", err)
		}
		c, err := parseConfig(data)
		if err != nil {
			return nil, fmt.Errorf("read registries configuration %s: %w", name, err)
		}
		return c, nil
	}
	return &Config{}, nil
}

func parseConfig(data []byte) (*Config, error) {
	c := new(Config)
	if err := toml.Unmarshal(data, c); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, column := at.Position()
			return nil, fmt.Errorf("line %d, column %d: %s", row, column, strings.TrimPrefix(at.Error(), "toml: "))
		}
		return nil, err
	}
	for i := range c.Registries {
		r := &c.Registries[i]
		if r.Prefix == "" {
			r.Prefix = r.Location
		}
		if r.Prefix == "" {
			return nil, hint.Errorf("see containers-registries.conf(5)", "a [[registry]] has neither prefix nor location")
		}
		if r.Location == "" && !strings.HasPrefix(r.Prefix, "*.") {
			r.Location = r.Prefix
		}
		for _, m := range r.Mirrors {
			if m.Location == "" {
				return nil, hint.Errorf("see containers-registries.conf(5)", "a mirror of %q has no location", r.Prefix)
			}
		}
	}
	// The longest prefix decides, as the man page has it.
	slices.SortStableFunc(c.Registries, func(a, b Location) int { return len(b.Prefix) - len(a.Prefix) })
	return c, nil
}

// Alias is the full name behind a short one, without tag and digest; "" when
// there is none.
func (c *Config) Alias(short string) string { return c.Aliases[short] }

// endpoint is where to ask for a repository.
type endpoint struct {
	address  string // host[:port]
	path     string
	insecure bool
	blocked  bool
}

// endpoints are the places of a repository: mirrors, then the registry itself.
func (c *Config) endpoints(registry, path string) []endpoint {
	name := registry + "/" + path
	for _, r := range c.Registries {
		rest, found := r.match(registry, name)
		if !found {
			continue
		}
		var list []endpoint
		for _, m := range r.Mirrors {
			list = append(list, at(m.Location+rest, m.Insecure))
		}
		last := endpoint{address: registry, path: path, insecure: r.Insecure}
		if r.Location != "" {
			last = at(r.Location+rest, r.Insecure)
		}
		last.blocked = r.Blocked
		if r.Blocked {
			return []endpoint{last}
		}
		return append(list, last)
	}
	return []endpoint{{address: registry, path: path}}
}

// registry is the place of a registry itself, past its mirrors.
func (c *Config) registry(registry, path string) endpoint {
	list := c.endpoints(registry, path)
	return list[len(list)-1]
}

// match cuts the prefix off a name, at the end of an element; *.lan is every
// host below lan.
func (r *Location) match(registry, name string) (rest string, found bool) {
	if domain, wild := strings.CutPrefix(r.Prefix, "*"); wild {
		host, _, _ := strings.Cut(registry, ":")
		return strings.TrimPrefix(name, registry), strings.HasSuffix(host, domain)
	}
	rest, found = strings.CutPrefix(name, r.Prefix)
	return rest, found && (rest == "" || rest[0] == '/')
}

func at(location string, insecure bool) endpoint {
	host, path, _ := strings.Cut(location, "/")
	return endpoint{address: host, path: strings.Trim(path, "/"), insecure: insecure}
}
