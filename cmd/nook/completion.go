package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/containers"
	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

// The scripts know nothing of nook: for each word they ask
//
//	nook __complete -- WORD...    the words so far, the last one unfinished
//
// which prints what may stand there, a line each, and maybe one of these:
//
//	:files     names of files may stand there too
//	:nospace   the word goes on after what was chosen
const completeName = "__complete"

func completionVerb() verb {
	return verb{
		name:    "completion",
		about:   "Generate the autocompletion script for a shell",
		usage:   "bash|zsh|fish",
		min:     1,
		max:     1,
		options: func() []option { return nil },
		examples: []string{
			"source <(nook completion bash)     in ~/.bashrc",
			"source <(nook completion zsh)      in ~/.zshrc, after compinit",
			"nook completion fish >~/.config/fish/completions/nook.fish",
		},
		run: func(s *shell, c *cli.Context) error {
			script, ok := completionScripts()[c.Args().First()]
			if !ok {
				return hint.Errorf("bash, zsh and fish are known", "completion for %q is not there", c.Args().First())
			}
			_, err := fmt.Fprint(s.stdout, script)
			return err
		},
	}
}

func completeVerb() verb {
	return verb{
		name:     completeName,
		hidden:   true,
		about:    "Print what may stand at the end of a command line",
		usage:    "WORD...",
		max:      -1,
		verbatim: true,
		options:  func() []option { return nil },
		run: func(s *shell, c *cli.Context) error {
			// What can't be found out is left out: nobody reads an error here.
			for _, line := range s.complete(c.Context, c.Args().Slice()) {
				fmt.Fprintln(s.stdout, line)
			}
			return nil
		},
	}
}

const (
	filesToo = ":files"
	noSpace  = ":nospace"
)

// complete gives what the last word may become.
func (s *shell) complete(ctx context.Context, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	global := lenient{options: globals(), verbatim: true}
	global.read(before)
	if global.open != nil {
		return beginning(last, s.values(*global.open, ""))
	}
	v, n := findVerb(global.args)
	if n == 0 {
		return beginning(last, words1(global.args, last))
	}
	line := lenient{options: v.options(), verbatim: v.verbatim}
	line.read(global.args[n:])
	switch {
	case line.open != nil:
		return beginning(last, s.values(*line.open, v.name))
	case strings.HasPrefix(last, "-") && !line.ended:
		return beginning(last, flagWords(v.options(), last, s, v.name))
	case v.name == "completion" && len(line.args) == 0:
		return beginning(last, []string{"bash", "zsh", "fish"})
	}
	nook, err := s.open(ctx, s.completionOptions(global.values))
	if err != nil {
		return nil
	}
	return beginning(last, things(ctx, nook, v, len(line.args)))
}

// words1 are the verbs and groups, or the subcommands of a group.
func words1(args []string, last string) []string {
	var out []string
	switch {
	case len(args) == 0 && strings.HasPrefix(last, "-"):
		return flagWords(globals(), last, nil, "")
	case len(args) == 0:
		for _, v := range verbs() {
			if !v.hidden && !strings.Contains(v.name, " ") {
				out = append(out, v.name)
			}
		}
		for _, g := range groups() {
			out = append(out, g.name)
		}
		out = append(out, "help")
	case len(args) == 1 && args[0] == "help":
		return words1(nil, last)
	case len(args) == 1:
		for _, v := range verbs() {
			for _, long := range v.long {
				if name, ok := strings.CutPrefix(long, args[0]+" "); ok {
					out = append(out, name)
				}
			}
		}
	}
	return out
}

// beginning keeps what begins with word, and the words about all.
func beginning(word string, all []string) []string {
	out := slices.DeleteFunc(slices.Clone(all), func(s string) bool {
		return !strings.HasPrefix(s, word) && s != filesToo && s != noSpace
	})
	slices.Sort(out)
	return slices.Compact(out)
}

// flagWords are the flags; once there is a =, what may stand behind it.
func flagWords(options []option, last string, s *shell, verb string) []string {
	name, _, assigned := strings.Cut(last, "=")
	var out []string
	for _, o := range options {
		switch {
		case assigned && name == "--"+o.name && s != nil:
			for _, v := range s.values(o, verb) {
				if v != filesToo {
					v = name + "=" + v
				}
				out = append(out, v)
			}
		case !assigned:
			out = append(out, "--"+o.name)
		}
	}
	if !assigned {
		out = append(out, "--help")
	}
	return out
}

// values are those that a flag may have, as far as they can be told.
func (s *shell) values(o option, verb string) []string {
	switch o.name {
	case "format":
		return []string{"json", "table"}
	case "ids":
		return []string{"auto", "mapped", "single"}
	case "network":
		return []string{"none", "host"}
	case "restart":
		return []string{"no", "always", "unless-stopped", "on-failure"}
	case "signal", "stop-signal":
		return []string{"HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "STOP", "CONT", "WINCH"}
	case "type":
		return []string{"container", "image", "volume"}
	case "filter":
		return filterWords(verb)
	case "root", "cidfile", "env-file", "label-file", "input", "output", "volume", "entrypoint":
		return []string{filesToo}
	}
	return nil
}

func filterWords(verb string) []string {
	known := map[string][]string{
		"ps": {"ancestor=", "before=", "exited=", "health=healthy", "health=none", "health=starting", "health=unhealthy", "id=", "label=", "name=",
			"network=", "since=", "status=created", "status=exited", "status=paused", "status=restarting", "status=running", "volume="},
		"events":          {"container=", "event=", "image=", "label=", "type=container", "type=image"},
		"builder prune":   {"until="},
		"container prune": {"label=", "label!=", "until="},
		"images":          {"before=", "dangling=true", "dangling=false", "label=", "label!=", "reference=", "since=", "until="},
		"image prune":     {"dangling=true", "dangling=false", "label=", "label!=", "until="},
		"system prune":    {"label=", "label!=", "until="},
		"volume ls":       {"dangling=true", "dangling=false", "driver=local", "label=", "label!=", "name="},
		"volume prune":    {"all=true", "label=", "label!="},
	}
	return append(known[verb], noSpace)
}

// things are what the verb's next argument is called in its usage: CONTAINER,
// IMAGE, COMMAND.
func things(ctx context.Context, nook backend, v verb, n int) []string {
	usage, _, _ := strings.Cut(v.usage, "\n")
	fields := slices.DeleteFunc(strings.Fields(usage), func(f string) bool { return f == "[OPTIONS]" || f == "|" })
	if len(fields) == 0 || n >= len(fields) && v.max >= 0 {
		return nil
	}
	kind := fields[min(n, len(fields)-1)]
	var out []string
	colon := strings.Contains(usage, "CONTAINER:")
	if strings.Contains(kind, "CONTAINER") || strings.Contains(kind, "NAME|ID") || colon {
		for _, name := range containerNames(ctx, nook, v.name) {
			if colon {
				name += ":"
			}
			out = append(out, name)
		}
	}
	if strings.Contains(kind, "IMAGE") || strings.Contains(kind, "NAME|ID") || strings.Contains(kind, "REPOSITORY") {
		out = append(out, imageNames(ctx, nook)...)
	}
	if strings.Contains(kind, "VOLUME") {
		out = append(out, volumeNames(ctx, nook)...)
	}
	if colon {
		out = append(out, noSpace)
	}
	if plain := strings.Trim(kind, "[.]"); colon || plain == "COMMAND" || plain == "ARG" || strings.Contains(strings.ToLower(plain), "file") {
		out = append(out, filesToo)
	}
	return out
}

// containerNames are those that the verb has a use for.
func containerNames(ctx context.Context, nook backend, verb string) []string {
	all, err := nook.List(ctx, engine.ListOptions{All: true})
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range all {
		live, paused := c.State.Status.Live(), c.State.Status == containers.Paused
		var useful bool
		switch verb {
		case "start":
			useful = !live
		case "stop", "kill", "attach", "top", "stats":
			useful = live
		case "exec", "pause":
			useful = live && !paused
		case "unpause":
			useful = paused
		default:
			useful = true
		}
		if useful {
			out = append(out, c.Name)
		}
	}
	return out
}

func volumeNames(ctx context.Context, nook backend) []string {
	all, _ := nook.Volumes(ctx, engine.VolumeFilter{}) // what is there without the damaged ones
	var out []string
	for _, v := range all {
		out = append(out, v.Name)
	}
	return out
}

func imageNames(ctx context.Context, nook backend) []string {
	all, err := nook.Images(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, img := range all {
		for _, name := range img.Names {
			tagged := images.FamiliarName(name)
			out = append(out, tagged)
			if short, ok := strings.CutSuffix(tagged, ":latest"); ok {
				out = append(out, short)
			}
		}
	}
	return out
}

func (s *shell) completionOptions(flags map[string]string) engine.Options {
	o := engine.Options{Root: flags["root"], IDs: flags["ids"]}
	if o.IDs == "" {
		o.IDs, _ = s.lookup("NOOK_IDS")
	}
	return o
}

// lenient reads words as grammar does, but for what isn't finished or wrong.
type lenient struct {
	options  []option
	verbatim bool

	args   []string
	values map[string]string
	open   *option // the last word was a flag whose value comes next
	ended  bool    // what follows is no flag
}

func (l *lenient) read(words []string) {
	l.values = map[string]string{}
	g := grammar{options: l.options}
	for _, word := range words {
		name, value, assigned := strings.Cut(word, "=")
		o, known := g.find(strings.TrimPrefix(name, "--"))
		if !strings.HasPrefix(word, "--") {
			o, known = option{}, false
			if len(word) > 1 && word[0] == '-' {
				o, known = g.findShort(word[len(word)-1:]) // the last of a cluster may want a value
			}
		}
		switch {
		case l.ended:
			l.args = append(l.args, word)
		case l.open != nil:
			l.values[l.open.name], l.open = word, nil
		case word == "--":
			l.ended = true
		case len(word) < 2 || word[0] != '-':
			l.args = append(l.args, word)
			l.ended = l.verbatim
		case known && assigned:
			l.values[o.name] = value
		case known && o.value != "":
			l.open = &o
		}
	}
}
