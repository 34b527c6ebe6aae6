package build

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"nook/images"
)

// built is a stage so far: its files, and what the image of it would be.
type built struct {
	state   State
	base    *Base // nil: scratch
	config  images.ImageConfig
	history []images.History
	args    map[string]string // the ARGs that have a value
	cmdSet  bool              // a CMD stands in this stage
	names   map[string]int    // where a variable stands in config's Env; nil: see variables
	own     owns
	copied  int // entries, for own
}

// owns says what of a stage is its own. The rest is that of the stage or image
// below, and copied before it is changed: once, however many instructions do.
type owns struct{ env, args, labels, ports, volumes bool }

// mostCopied bounds the variables, labels and ports that all stages copy of what
// they are based on: four thousand stages on one with a thousand variables.
const mostCopied = 1 << 22

var errCopied = fmt.Errorf("the stages have more than %d variables, labels and ports of what they are based on", mostCopied)

// clone is a copy for a stage that goes on from here. Neither sees what becomes
// of the other: the one it is made of changes no more.
func (b *built) clone() *built {
	c := *b
	c.history = slices.Clip(b.history)
	c.cmdSet = false // args stay: a stage inherits those of the one it is based on
	c.own, c.copied = owns{}, 0
	return &c
}

// owned is a map of the stage's own.
func owned[V any](b *built, m *map[string]V, own *bool) map[string]V {
	if !*own {
		*m, *own = maps.Clone(*m), true
		b.copied += len(*m)
	}
	if *m == nil {
		*m = map[string]V{}
	}
	return *m
}

// variables is where each stands in the config's Env. Of two with a name the
// last one counts, as it does to a shell.
func (b *built) variables() map[string]int {
	if b.names == nil {
		b.names = make(map[string]int, len(b.config.Config.Env))
		for i, entry := range b.config.Config.Env {
			name, _, _ := strings.Cut(entry, "=")
			b.names[name] = i
		}
	}
	return b.names
}

// setEnv puts a variable into the config's Env, in its old place.
func (b *built) setEnv(name, value string) {
	env := &b.config.Config.Env
	names := b.variables()
	if !b.own.env {
		*env = slices.Clone(*env)
		names = maps.Clone(names)
		b.names, b.own.env = names, true
		b.copied += len(names)
	}
	i, ok := names[name]
	if !ok {
		i = len(*env)
		names[name] = i
		*env = append(*env, "")
	}
	(*env)[i] = name + "=" + value
}
