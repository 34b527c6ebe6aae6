package engine

import (
	"encoding/csv"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"nook/containers"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

// What docker's -v and --mount mean, as far as it can be told without a look
// at the host: mount.go has that.

// mountFlag is a mount as a flag asks for it.
type mountFlag struct {
	containers.Mount
	typed string // the flag, for errors
	make  bool   // a source that isn't there becomes a directory, as docker's -v has it
	// labels and options are of a volume that is made for it.
	labels, options map[string]string
	readOnlyBelow   bool // bind-recursive=readonly: that is so of each bind, but a slave's new ones
}

const volumeGrammar = "-v takes [SRC:]DST[:OPTIONS]: SRC is an absolute path or a volume's name, DST an absolute path in the container, OPTIONS of ro, rw, nocopy, U, slave, rslave, private, rprivate"

// parseVolume reads -v.
func parseVolume(v string) (mountFlag, error) {
	m := mountFlag{typed: fmt.Sprintf("-v %q", v), make: true}
	parts := strings.Split(v, ":")
	if len(parts) > 3 || slices.Contains(parts, "") && v != "" && parts[len(parts)-1] != "" || parts[0] == "" {
		return m, hint.Errorf(volumeGrammar, "invalid volume specification: %q", v)
	}
	source, options := "", ""
	switch len(parts) {
	case 1:
		m.Target = parts[0]
	case 2:
		source, m.Target = parts[0], parts[1]
	default:
		source, m.Target, options = parts[0], parts[1], parts[2]
	}
	switch {
	case source == "":
		m.Type, m.Anonymous = "volume", true
	case strings.HasPrefix(source, "/"), strings.HasPrefix(source, "."): // the latter as docker since 23
		m.Type = "bind"
		abs, err := filepath.Abs(source)
		if err != nil {
			return m, fmt.Errorf("%s: %w", m.typed, err)
		}
		m.Source = abs
		if source != "/" && strings.HasSuffix(source, "/") {
			m.Source += "/" // a link there is followed, a file refused
		}
	default:
		m.Type, m.Name = "volume", source
		if err := volumes.ValidName(source); err != nil {
			return m, fmt.Errorf("%s: %w", m.typed, err)
		}
	}
	if err := m.target(); err != nil {
		return m, err
	}
	m.Options = options
	return m, m.modes(options)
}

// target checks and cleans where it is mounted.
func (m *mountFlag) target() error {
	clean := path.Clean(m.Target)
	switch {
	case !path.IsAbs(m.Target):
		return hint.Errorf("it is a path inside of the container: begin it with /", "%s: mount path %q must be absolute", m.typed, m.Target)
	case clean == "/":
		return hint.Errorf("mount it below", "%s: the destination can't be /", m.typed)
	case strings.ContainsRune(m.Target, 0), strings.ContainsRune(m.Source, 0):
		return fmt.Errorf("%s: a path with a NUL byte", m.typed)
	}
	m.Target = clean
	return nil
}

// modes reads the options of -v.
func (m *mountFlag) modes(options string) error {
	seen := map[string]bool{}
	once := func(kind string) error {
		if seen[kind] {
			return hint.Errorf(volumeGrammar, "%s: invalid mode: %s", m.typed, options)
		}
		seen[kind] = true
		return nil
	}
	for o := range strings.SplitSeq(options, ",") {
		var err error
		switch o {
		case "":
		case "ro", "rw":
			err = once("access")
			m.ReadOnly = o == "ro"
		case "nocopy":
			if err = once(o); err == nil && m.Type != "volume" {
				err = hint.Errorf("it is for volumes", "%s: invalid mode: nocopy", m.typed)
			}
			m.NoCopy = true
		case "U":
			m.Chown = true
		case "z", "Z":
			err = m.relabel()
		case "consistent", "cached", "delegated": // of docker on other systems
			err = once("consistency")
		default:
			if err = once("propagation"); err == nil {
				err = m.propagation(o)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// relabel is SELinux's, which most hosts don't have.
func (m *mountFlag) relabel() error {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		return nil //nolint:nilerr // no SELinux, nothing to do
	}
	return hint.Errorf("leave it out, and give the files a label with chcon", "%s: the source isn't relabelled for SELinux", m.typed)
}

func (m *mountFlag) propagation(word string) error {
	switch word {
	case "private", "rprivate":
	case "slave", "rslave":
		m.Slave = true
	case "shared", "rshared":
		return hint.Errorf("use rslave, and mount on the host",
			"%s: %s: mounts of a user namespace never reach the host, whose are their masters (mount_namespaces(7))", m.typed, word)
	default:
		return hint.Errorf(volumeGrammar, "%s: invalid mode: %s", m.typed, word)
	}
	if m.Type != "bind" {
		return hint.Errorf("it is for binds", "%s: invalid mode: %s", m.typed, word)
	}
	return nil
}

const mountGrammar = "--mount takes type=volume|bind|tmpfs, source=, target=, readonly, volume-nocopy, volume-subpath=, volume-label=, " +
	"volume-driver=, volume-opt=, bind-propagation=, bind-recursive=, tmpfs-size=, tmpfs-mode=, chown"

// parseMount reads --mount: one line of CSV.
func parseMount(v string) (mountFlag, error) {
	m := mountFlag{typed: fmt.Sprintf("--mount %q", v)}
	m.Type = "volume"
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return m, hint.Errorf(mountGrammar, "%s: %w", m.typed, err)
	}
	var kinds []string // of the options that are for one type alone
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		key = strings.ToLower(key)
		if !has {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "chown", "u":
				value = "true"
			default:
				return m, hint.Errorf(mountGrammar, "%s: invalid field %q must be a key=value pair", m.typed, field)
			}
		}
		if kind, _, of := strings.Cut(key, "-"); of {
			kinds = append(kinds, kind)
		}
		if err := m.field(key, value, field); err != nil {
			return m, err
		}
	}
	for _, kind := range kinds {
		if kind != m.Type {
			return m, hint.Errorf(mountGrammar, "%s: cannot mix %q options with mount type %q", m.typed, kind+"-*", m.Type)
		}
	}
	return m, m.whole()
}

// field reads one field of --mount.
func (m *mountFlag) field(key, value, field string) (err error) {
	flag := func() (on bool) {
		if on, err = strconv.ParseBool(value); err != nil {
			err = hint.Errorf("it is true or false", "%s: invalid value for %s: %s", m.typed, key, value)
		}
		return on
	}
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly = flag()
	case "chown", "u":
		m.Chown = flag()
	case "consistency":
	case "bind-propagation":
		kind := m.Type
		m.Type = "bind"
		err = m.propagation(strings.ToLower(value))
		m.Type = kind
	case "bind-nonrecursive":
		m.NoRecurse = flag()
	case "bind-recursive":
		err = m.recursive(value)
	case "bind-create-src":
		m.make = flag()
	case "volume-nocopy":
		m.NoCopy = flag()
	case "volume-subpath":
		m.Subpath = value
		switch {
		case value == "":
			err = fmt.Errorf("%s: volume-subpath is empty", m.typed)
		case !filepath.IsLocal(value):
			err = hint.Errorf("leave out what leads up or to the root", "%s: subpath must be a relative path within the volume", m.typed)
		}
	case "volume-label":
		m.labels = with(m.labels, value)
	case "volume-opt":
		m.options = with(m.options, value)
	case "volume-driver":
		err = localDriver(value)
	case "tmpfs-size":
		var n int64
		if n, err = units.RAMInBytes(value); err != nil || n < 0 {
			return hint.Errorf("it is in bytes, or with a unit: 64m", "%s: invalid value for %s: %s", m.typed, key, value)
		}
		m.Options = strings.TrimPrefix(m.Options+",size="+strconv.FormatInt(n, 10), ",")
	case "tmpfs-mode":
		m.Options = strings.TrimPrefix(m.Options+",mode="+value, ",")
	default:
		err = hint.Errorf(mountGrammar, "%s: unexpected key %q in %q", m.typed, key, field)
	}
	return err
}

func (m *mountFlag) recursive(value string) error {
	switch value {
	case "enabled":
	case "readonly":
		m.readOnlyBelow = true
	case "disabled":
		m.NoRecurse = true
	case "writable":
		m.WritableBelow = true
	default:
		return hint.Errorf("it is enabled, disabled, writable or readonly", "%s: invalid value for bind-recursive: %s", m.typed, value)
	}
	return nil
}

func with(in map[string]string, pair string) map[string]string {
	if in == nil {
		in = map[string]string{}
	}
	key, value, _ := strings.Cut(pair, "=")
	in[key] = value
	return in
}

func localDriver(name string) error {
	if name != "" && name != "local" {
		return hint.Errorf("leave it out", "volume driver %q: local is the one there is", name)
	}
	return nil
}

// whole checks a --mount that was read to its end.
func (m *mountFlag) whole() error {
	if m.Target == "" {
		return hint.Errorf(mountGrammar, "%s: target is required", m.typed)
	}
	switch m.Type {
	case "bind":
		if m.Source == "" {
			return hint.Errorf(mountGrammar, "%s: field Source must not be empty", m.typed)
		}
		abs, err := filepath.Abs(m.Source)
		if err != nil {
			return fmt.Errorf("%s: %w", m.typed, err)
		}
		m.Source = abs
		word := "writable"
		if m.readOnlyBelow {
			word = "readonly"
		}
		if (m.WritableBelow || m.readOnlyBelow) && !m.ReadOnly {
			return hint.Errorf("add readonly", "%s: bind-recursive=%s requires readonly", m.typed, word)
		}
		if m.readOnlyBelow && m.Slave {
			return hint.Errorf("leave bind-propagation out", "%s: bind-recursive=readonly requires bind-propagation=rprivate: what the host mounts there later is as it mounts it", m.typed)
		}
	case "volume":
		m.Name, m.Source = m.Source, ""
		m.Anonymous = m.Name == ""
		if m.Anonymous && m.Subpath != "" {
			return hint.Errorf("name the volume with source=", "%s: must not set Subpath when using anonymous volumes", m.typed)
		}
		if !m.Anonymous {
			if err := volumes.ValidName(m.Name); err != nil {
				return fmt.Errorf("%s: %w", m.typed, err)
			}
		}
	case "tmpfs":
		if m.Source != "" {
			return hint.Errorf("leave source out", "%s: field Source must not be specified", m.typed)
		}
		if m.Chown {
			return hint.Errorf("give its owner with --tmpfs "+m.Target+":uid=,gid=", "%s: chown is for binds and volumes", m.typed)
		}
		if m.ReadOnly {
			m.Options, m.ReadOnly = strings.TrimPrefix(m.Options+",ro", ","), false
		}
		if _, _, err := tmpfsOptions(m.Options); err != nil {
			return fmt.Errorf("%s: %w", m.typed, err)
		}
	default:
		return hint.Errorf(mountGrammar, "%s: mount type %q is not known", m.typed, m.Type)
	}
	return m.target()
}

// parseTmpfs reads --tmpfs.
func parseTmpfs(v string) (mountFlag, error) {
	target, options, _ := strings.Cut(v, ":")
	m := mountFlag{typed: fmt.Sprintf("--tmpfs %q", v)}
	m.Type, m.Target, m.Options = "tmpfs", target, options
	if err := m.target(); err != nil {
		return m, err
	}
	_, _, err := tmpfsOptions(options)
	return m, err
}

// mountFlags reads -v, --mount and --tmpfs.
func mountFlags(o RunOptions) ([]mountFlag, error) {
	var out []mountFlag
	targets := map[string]bool{}
	for _, kind := range []struct {
		parse  func(string) (mountFlag, error)
		values []string
	}{{parseVolume, o.Volumes}, {parseMount, o.Mounts}, {parseTmpfs, o.Tmpfs}} {
		for _, v := range kind.values {
			m, err := kind.parse(v)
			if err != nil {
				return nil, err
			}
			if targets[m.Target] {
				return nil, hint.Errorf("give each destination once", "duplicate mount point: %s", m.Target)
			}
			targets[m.Target] = true
			out = append(out, m)
		}
	}
	return out, nil
}
