package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"nook/images"
	"nook/internal/hint"
)

// applyChanges reads the Dockerfile instructions that docker import --change
// takes.
func applyChanges(changes []string) (images.ContainerConfig, error) {
	var c images.ContainerConfig
	return c, changeConfig(&c, changes)
}

// changeConfig applies Dockerfile instructions to an image's config, as docker
// commit --change does. The parser of buildkit would do it too, and costs every
// start of nook half a millisecond (docs/design/start-up.md).
func changeConfig(c *images.ContainerConfig, changes []string) error {
	cmd := false // whether a CMD came before
	for _, change := range changes {
		word, rest, _ := strings.Cut(strings.TrimSpace(change), " ")
		rest = strings.TrimSpace(rest)
		word = strings.ToUpper(word)
		err := errChange
		if rest != "" {
			err = changeOne(c, word, rest)
		}
		switch {
		case errors.Is(err, errChange):
			return hint.Errorf("CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR can be changed",
				"--change %q: %w", change, err)
		case err != nil:
			return fmt.Errorf("--change %q: %w", change, err)
		case word == "CMD":
			cmd = true
		case word == "ENTRYPOINT" && !cmd:
			c.Cmd = nil // it belonged to the entrypoint before
		}
	}
	return nil
}

var errChange = errors.New("not an instruction for an image's config")

func changeOne(c *images.ContainerConfig, word, rest string) (err error) {
	switch word {
	case "CMD":
		c.Cmd = command(c, rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(c, rest)
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
		c.Volumes = addAll(c.Volumes, rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		if !path.IsAbs(rest) {
			rest = path.Join("/", c.WorkingDir, rest)
		}
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "HEALTHCHECK":
		c.Healthcheck, err = healthcheck(rest)
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	default:
		return errChange
	}
	return err
}

// healthcheck reads NONE, or options and CMD with a command.
func healthcheck(rest string) (*images.Healthcheck, error) {
	h := &images.Healthcheck{}
	for strings.HasPrefix(rest, "--") {
		option, after, _ := strings.Cut(rest, " ")
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "--interval":
			h.Interval, err = time.ParseDuration(value)
		case "--timeout":
			h.Timeout, err = time.ParseDuration(value)
		case "--start-period":
			h.StartPeriod, err = time.ParseDuration(value)
		case "--start-interval":
			h.StartInterval, err = time.ParseDuration(value)
		case "--retries":
			h.Retries, err = strconv.Atoi(value)
		default:
			err = errors.New("unknown option")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rest = strings.TrimSpace(after)
	}
	word, args, _ := strings.Cut(rest, " ")
	args = strings.TrimSpace(args)
	switch {
	case strings.EqualFold(word, "NONE") && args == "":
		h.Test = []string{"NONE"}
	case strings.EqualFold(word, "CMD") && args != "":
		var list []string
		if json.Unmarshal([]byte(args), &list) == nil && len(list) > 0 {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", args}
		}
	default:
		return nil, errors.New("NONE or CMD with a command is missing")
	}
	return h, nil
}

// command reads the exec form, a JSON array, or the shell form.
func command(c *images.ContainerConfig, rest string) []string {
	var list []string
	if json.Unmarshal([]byte(rest), &list) == nil {
		return list
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), rest)
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

func addAll(set map[string]struct{}, rest string) map[string]struct{} {
	if set == nil {
		set = map[string]struct{}{}
	}
	var list []string
	if json.Unmarshal([]byte(rest), &list) != nil {
		list = strings.Fields(rest)
	}
	for _, v := range list {
		set[v] = struct{}{}
	}
	return set
}
