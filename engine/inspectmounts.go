package engine

import (
	"strings"

	"nook/containers"
)

// inspectedMounts fills what HostConfig says of mounts: what was asked for.
func inspectedMounts(out *HostConfig, cfg *containers.Config) {
	for _, m := range cfg.Mounts {
		source := m.Source
		if m.Type == "volume" {
			source = m.Name
		}
		switch {
		case m.Type == "tmpfs":
			if out.Tmpfs == nil {
				out.Tmpfs = map[string]string{}
			}
			out.Tmpfs[m.Target] = m.Options
		case m.Anonymous: // docker has those in Config.Volumes alone
		case m.Subpath != "":
			out.Mounts = append(out.Mounts, InspectedMount{m.Type, source, m.Target, m.ReadOnly})
		default:
			out.Binds = append(out.Binds, strings.TrimSuffix(source+":"+m.Target+":"+mountMode(m), ":"))
		}
	}
}

// mountMode is the third part of a -v.
func mountMode(m containers.Mount) string {
	var words []string
	if m.ReadOnly {
		words = append(words, "ro")
	}
	for _, o := range []struct {
		on   bool
		word string
	}{{m.NoCopy, "nocopy"}, {m.Chown, "U"}, {m.Slave, "rslave"}} {
		if o.on {
			words = append(words, o.word)
		}
	}
	return strings.Join(words, ",")
}

// mountPoints are the binds and volumes: docker shows those of --tmpfs in
// HostConfig alone.
func (e *Engine) mountPoints(cfg *containers.Config) []MountPoint {
	out := []MountPoint{}
	for _, m := range cfg.Mounts {
		p := MountPoint{Type: m.Type, Source: m.Source, Destination: m.Target, Mode: mountMode(m), RW: !m.ReadOnly}
		switch m.Type {
		case "bind":
			p.Propagation = "rprivate"
			if m.Slave {
				p.Propagation = "rslave"
			}
		case "volume":
			p.Name, p.Driver, p.Source = m.Name, "local", e.volumes.Data(m.Name)
		default:
			continue
		}
		out = append(out, p)
	}
	return out
}
