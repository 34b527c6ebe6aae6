package engine

import (
	"encoding/json"
	"strings"

	"nook/images"
	"nook/internal/hint"
)

// applyChanges reads the Dockerfile instructions that docker import --change
// takes. The parser of buildkit would do it too, and costs every start of
// nook half a millisecond (docs/design/start-up.md).
func applyChanges(changes []string) (images.ContainerConfig, error) {
	var c images.ContainerConfig
	for _, change := range changes {
		word, rest, _ := strings.Cut(strings.TrimSpace(change), " ")
		rest = strings.TrimSpace(rest)
		refuse := hint.Errorf("CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME and WORKDIR can be changed",
			"--change %q: not an instruction for an image's config", change)
		if rest == "" {
			return c, refuse
		}
		switch strings.ToUpper(word) {
		case "CMD":
			c.Cmd = command(rest)
		case "ENTRYPOINT":
			c.Entrypoint = command(rest)
		case "ENV":
			for _, kv := range pairs(rest) {
				name, _, _ := strings.Cut(kv, "=")
				c.Env = put(c.Env, name, kv)
			}
		case "LABEL":
			for _, kv := range pairs(rest) {
				if c.Labels == nil {
					c.Labels = map[string]string{}
				}
				name, value, _ := strings.Cut(kv, "=")
				c.Labels[name] = value
			}
		case "EXPOSE":
			c.ExposedPorts = addPorts(c.ExposedPorts, rest)
		case "VOLUME":
			c.Volumes = addAll(c.Volumes, command(rest), rest)
		case "USER":
			c.User = rest
		case "WORKDIR":
			c.WorkingDir = rest
		case "STOPSIGNAL":
			c.StopSignal = rest
		default:
			return c, refuse
		}
	}
	return c, nil
}

// command reads the exec form, a JSON array, or the shell form.
func command(rest string) []string {
	var list []string
	if json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", rest}
}

// pairs reads `a=b c="d e"`, or the old form `a b`.
func pairs(rest string) []string {
	if first, value, _ := strings.Cut(rest, " "); !strings.Contains(first, "=") {
		return []string{first + "=" + strings.TrimSpace(value)}
	}
	var out []string
	var word strings.Builder
	quote := rune(0)
	for _, r := range rest {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case quote == 0 && r == ' ':
			if word.Len() > 0 {
				out = append(out, word.String())
				word.Reset()
			}
		default:
			word.WriteRune(r)
		}
	}
	if word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}

func addPorts(set map[string]struct{}, rest string) map[string]struct{} {
	if set == nil {
		set = map[string]struct{}{}
	}
	for _, port := range strings.Fields(rest) {
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		set[port] = struct{}{}
	}
	return set
}

func addAll(set map[string]struct{}, list []string, rest string) map[string]struct{} {
	if set == nil {
		set = map[string]struct{}{}
	}
	if !strings.HasPrefix(rest, "[") {
		list = strings.Fields(rest)
	}
	for _, v := range list {
		set[v] = struct{}{}
	}
	return set
}
