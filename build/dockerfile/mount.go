package dockerfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"nook/internal/hint"
	"nook/internal/nearest"
)

// Mount is a --mount of RUN, read and expanded.
type Mount struct {
	Type     string // bind, cache, tmpfs, secret or ssh
	From     string
	Source   string
	Target   string
	ReadOnly bool
	Required bool
	Size     int64  // bytes, of tmpfs
	ID       string // of cache, secret and ssh
	Sharing  string // of cache: "", shared, private or locked
	Env      *string
	Mode     *uint64
	UID, GID *uint64
}

// MountFrom finds from=X in a --mount, without reading the rest of it. Of
// several the last counts, as it does for ParseMount.
func MountFrom(m string) (from string) {
	fields, _ := mountFields(m)
	for _, field := range fields {
		if name, value, _ := strings.Cut(field, "="); strings.EqualFold(name, "from") {
			from = value
		}
	}
	return from
}

// mountFields splits at commas outside of double quotes, as CSV has them.
func mountFields(m string) ([]string, error) {
	var fields []string
	var b strings.Builder
	quoted := false
	for i := 0; i < len(m); i++ {
		switch c := m[i]; {
		case c == '"' && quoted && i+1 < len(m) && m[i+1] == '"':
			b.WriteByte('"')
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			fields = append(fields, b.String())
			b.Reset()
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return fields, errors.New("a quote in it has no end")
	}
	return append(fields, b.String()), nil
}

// ParseMount reads a --mount. expand is called for each value but from's.
func ParseMount(text string, expand func(string) (string, error)) (Mount, error) {
	m, err := parseMount(text, expand)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return Mount{}, fmt.Errorf("--mount=%s: %w", text, err)
	}
	return m, nil
}

func parseMount(text string, expand func(string) (string, error)) (Mount, error) {
	m := Mount{Type: "bind"}
	fields, err := mountFields(text)
	if err != nil {
		return m, err
	}
	var readOnly *bool
	for _, field := range fields {
		key, value, given := strings.Cut(field, "=")
		key = strings.ToLower(key)
		if key != "from" {
			if value, err = expand(value); err != nil {
				return m, err
			}
		}
		switch key {
		case "readonly", "ro", "readwrite", "rw", "required":
			on := true
			if given {
				if on, err = strconv.ParseBool(value); err != nil {
					return m, fmt.Errorf("%s=%s: true or false is meant", key, value)
				}
			}
			switch key {
			case "required":
				m.Required = on
			case "readwrite", "rw":
				on = !on
				fallthrough
			default:
				readOnly = &on
			}
			continue
		}
		if !given {
			return m, fmt.Errorf("%q has no value", field)
		}
		if err := m.set(key, value); err != nil {
			return m, err
		}
	}
	m.ReadOnly = m.Type != "cache" && m.Type != "tmpfs"
	if readOnly != nil {
		m.ReadOnly = *readOnly
	}
	return m, nil
}

func (m *Mount) set(key, value string) (err error) {
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
		if types := []string{"bind", "cache", "tmpfs", "secret", "ssh"}; !slices.Contains(types, m.Type) {
			return hint.Errorf("the types are "+strings.Join(types, ", "), "unknown type %q", value)
		}
	case "from":
		m.From = value
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "size":
		if m.Size, err = units.RAMInBytes(value); err != nil {
			return fmt.Errorf("size=%s is not a size", value)
		}
	case "id":
		m.ID = value
	case "sharing":
		m.Sharing = strings.ToLower(value)
		if !slices.Contains([]string{"shared", "private", "locked"}, m.Sharing) {
			return hint.Errorf("shared, private and locked are known", "unknown sharing %q", value)
		}
	case "mode":
		m.Mode, err = number(key, value, 8)
	case "uid":
		m.UID, err = number(key, value, 10)
	case "gid":
		m.GID, err = number(key, value, 10)
	case "env":
		m.Env = &value
	default:
		err := fmt.Errorf("unknown key %q", key)
		known := []string{
			"type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required",
			"size", "mode", "uid", "gid", "env",
		}
		if like := nearest.Word(key, known); like != "" {
			return hint.Wrap(err, "did you mean "+like+"?")
		}
		return err
	}
	return err
}

func number(key, value string, base int) (*uint64, error) {
	n, err := strconv.ParseUint(value, base, 32)
	if err != nil {
		return nil, fmt.Errorf("%s=%s is not a number", key, value)
	}
	return &n, nil
}

// check refuses keys that the type doesn't have: one without effect would be a
// promise that isn't kept.
func (m *Mount) check() error {
	has := func(types ...string) bool { return slices.Contains(types, m.Type) }
	for _, one := range []struct {
		key   string
		given bool
		ok    bool
	}{
		{"from", m.From != "", has("bind", "cache")},
		{"source", m.Source != "", has("bind", "cache", "secret")},
		{"required", m.Required, has("secret", "ssh")},
		{"size", m.Size != 0, has("tmpfs")},
		{"id", m.ID != "", has("cache", "secret", "ssh")},
		{"sharing", m.Sharing != "", has("cache")},
		{"env", m.Env != nil, has("secret")},
		{"mode", m.Mode != nil, has("cache", "secret", "ssh")},
		{"uid", m.UID != nil, has("cache", "secret", "ssh")},
		{"gid", m.GID != nil, has("cache", "secret", "ssh")},
	} {
		if one.given && !one.ok {
			return fmt.Errorf("a mount of type %s has no %s", m.Type, one.key)
		}
	}
	switch {
	case m.Target == "" && has("bind", "cache", "tmpfs"):
		return errors.New("it has no target")
	case m.Type == "secret" && m.Source != "" && m.ID != "":
		return errors.New("id and source are the same: one of them is meant")
	case m.Type == "secret" && m.Source == "" && m.ID == "" && m.Target == "":
		return errors.New("it has no id")
	}
	return nil
}
