package dockerfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"nook/internal/hint"
	"nook/internal/nearest"
)

// keywords are all instructions.
func keywords() []string {
	return []string{
		"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
		"MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
	}
}

// ParseOne reads one instruction that stands in no file: what ONBUILD kept.
func ParseOne(name, text string) (*Instruction, error) {
	f, err := Parse(name, []byte(text))
	switch {
	case err != nil:
		return nil, err
	case len(f.Commands) != 1:
		return nil, &Error{File: name, Err: fmt.Errorf("%d instructions where one is meant", len(f.Commands))}
	}
	return &f.Commands[0], nil
}

// parse makes the typed command.
func (in *Instruction) parse() (err error) {
	switch in.Keyword {
	case "FROM":
		in.Command, err = in.from()
	case "RUN":
		in.Command, err = in.run()
	case "COPY", "ADD":
		in.Command, err = in.copy(in.Keyword == "ADD")
	case "ARG":
		in.Command, err = in.arg()
	case "ENV", "LABEL":
		in.Command, err = in.pairs()
	case "CMD", "ENTRYPOINT":
		in.Command, err = in.start()
	case "SHELL":
		in.Command, err = in.shell()
	case "WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER":
		in.Command, err = in.single()
	case "EXPOSE", "VOLUME":
		in.Command, err = in.several()
	case "HEALTHCHECK":
		in.Command, err = in.healthcheck()
	case "ONBUILD":
		in.Command, err = in.onbuild()
	default:
		advice := "the instructions are " + strings.Join(keywords(), ", ")
		if like := nearest.Word(in.Keyword, keywords()); like != "" {
			advice = "did you mean " + like + "?"
		}
		return in.fault(0, hint.Errorf(advice, "unknown instruction: %s", in.Keyword))
	}
	return err
}

func (in *Instruction) noFlags() error { return flagSet{in: in}.parse() }

func (in *Instruction) needsOne() *Error {
	return in.faultf(0, "%s takes at least one argument", in.Keyword)
}

// argAt is the nth word of a list, or where the list ends.
func (in *Instruction) argAt(words []word, n int) int {
	if n < len(words) {
		return words[n].at
	}
	return len(in.Text)
}

func (in *Instruction) from() (Command, error) {
	c := &From{}
	if err := (flagSet{in: in, strs: map[string]*string{"platform": &c.Platform}}).parse(); err != nil {
		return nil, err
	}
	args := fields(in.rest, in.restAt)
	switch {
	case len(args) == 3 && strings.EqualFold(args[1].text, "as"):
		c.Name = strings.ToLower(args[2].text)
		if !stageName(c.Name) {
			return nil, in.faultf(args[2].at, "invalid name for a build stage: %q", args[2].text)
		}
	case len(args) != 1:
		return nil, in.faultf(in.argAt(args, 1), "FROM takes IMAGE or IMAGE AS NAME")
	}
	c.Base = args[0].text
	return c, nil
}

// stageName: a letter, then letters, digits, "_", "-" and "."; not the names
// that mean something else (docker reserves both).
func stageName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z'
		if !letter && (i == 0 || !(r >= '0' && r <= '9') && !strings.ContainsRune("_-.", r)) {
			return false
		}
	}
	return s != "context" && s != "scratch"
}

func (in *Instruction) run() (Command, error) {
	c := &Run{Heredocs: in.heredocs}
	security := ""
	err := flagSet{
		in:    in,
		strs:  map[string]*string{"network": &c.Network, "security": &security},
		lists: map[string]*[]string{"mount": &c.Mounts},
	}.parse()
	if err != nil {
		return nil, err
	}
	switch c.Network {
	case "", "default", "none", "host":
	default:
		return nil, in.Fault("--network", fmt.Errorf("--network=%s: default, none and host are known", c.Network))
	}
	switch security {
	case "", "sandbox":
	case "insecure":
		return nil, in.Fault("--security", hint.Errorf("a build of nook never has more rights than its user",
			"--security=insecure is refused"))
	default:
		return nil, in.Fault("--security", fmt.Errorf("--security=%s: sandbox is known", security))
	}
	for _, m := range c.Mounts {
		if from := MountFrom(m); strings.Contains(strings.TrimSuffix(from, "$"), "$") {
			return nil, in.Fault("from=", errNoVariable)
		}
	}
	if c.CommandLine, err = in.commandLine(in.rest, in.restAt); err != nil {
		return nil, err
	}
	if len(c.Words) == 0 {
		return nil, in.needsOne()
	}
	return c, nil
}

var errNoVariable = hint.Errorf("name a stage instead: FROM $IMAGE AS name", "from takes no variables")

// commandLine reads the JSON form or the other.
func (in *Instruction) commandLine(s string, at int) (CommandLine, error) {
	words, json, err := jsonWords(s)
	switch {
	case err != nil:
		return CommandLine{}, in.fault(at, err)
	case json:
		return CommandLine{Words: words}, nil
	case s == "":
		return CommandLine{Shell: true}, nil
	}
	return CommandLine{Words: []string{s}, Shell: true}, nil
}

func (in *Instruction) copy(add bool) (Command, error) {
	c := &Copy{Add: add}
	set := flagSet{
		in:    in,
		strs:  map[string]*string{"chown": &c.Chown, "chmod": &c.Chmod},
		bools: map[string]*bool{"link": &c.Link},
		lists: map[string]*[]string{"exclude": &c.Exclude},
	}
	if add {
		set.strs["checksum"], set.bools["keep-git-dir"], set.unpack = &c.Checksum, &c.KeepGitDir, &c.Unpack
	} else {
		set.strs["from"], set.bools["parents"] = &c.From, &c.Parents
	}
	if err := set.parse(); err != nil {
		return nil, err
	}
	if strings.Contains(c.From, "$") {
		return nil, in.Fault("--from", errNoVariable)
	}
	list, json, err := jsonWords(in.rest)
	if err != nil {
		return nil, in.fault(in.restAt, err)
	}
	args := fields(in.rest, in.restAt)
	if json {
		args = nil
		for _, text := range list {
			args = append(args, word{text, in.restAt})
		}
	}
	if len(args) < 2 {
		return nil, in.faultf(in.argAt(args, 1), "%s takes at least one source and a destination", in.Keyword)
	}
	sources, dest := args[:len(args)-1], args[len(args)-1]
	c.Dest = dest.text
	if _, ok := heredocWord(c.Dest); ok && !json {
		return nil, in.faultf(dest.at, "a heredoc is no destination")
	}
	left := in.heredocs
	for _, source := range sources {
		_, ok := heredocWord(source.text)
		switch {
		case !ok || json:
			c.Sources = append(c.Sources, source.text)
		case len(left) == 0: // the line is no words of a shell: a quote in it has no end
			return nil, in.fault(source.at, errUnterminated)
		default:
			c.Heredocs = append(c.Heredocs, left[0])
			left = left[1:]
		}
	}
	return c, nil
}

func (in *Instruction) arg() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	c := &Arg{}
	for _, w := range in.file.words(in.rest, in.restAt) {
		name, value, given := strings.Cut(w.text, "=")
		if name == "" {
			return nil, in.faultf(w.at, "ARG has no name")
		}
		one := ArgName{Name: name}
		if given {
			one.Default = &value
		}
		c.Args = append(c.Args, one)
	}
	if len(c.Args) == 0 {
		return nil, in.needsOne()
	}
	return c, nil
}

// pairs reads ENV and LABEL: NAME=VALUE ..., or the old form NAME VALUE.
func (in *Instruction) pairs() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	words := in.file.words(in.rest, in.restAt)
	if len(words) == 0 {
		return nil, in.needsOne()
	}
	var pairs []Pair
	if !strings.Contains(words[0].text, "=") {
		name, value, ok := cutSpace(in.rest)
		if !ok {
			return nil, in.faultf(len(in.Text), "%s takes NAME=VALUE", in.Keyword)
		}
		pairs = append(pairs, Pair{name, value})
		words = nil
	}
	for _, w := range words {
		name, value, ok := strings.Cut(w.text, "=")
		switch {
		case !ok:
			return nil, in.faultf(w.at, "%q has no =: %s takes NAME=VALUE", w.text, in.Keyword)
		case name == "":
			return nil, in.faultf(w.at, "%s has no name", in.Keyword)
		}
		pairs = append(pairs, Pair{name, value})
	}
	if in.Keyword == "ENV" {
		return &Env{pairs}, nil
	}
	return &Label{pairs}, nil
}

func cutSpace(s string) (before, after string, ok bool) {
	i := strings.IndexFunc(s, isSpace)
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimLeftFunc(s[i:], isSpace), true
}

func (in *Instruction) start() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	line, err := in.commandLine(in.rest, in.restAt)
	if err != nil {
		return nil, err
	}
	if in.Keyword == "CMD" {
		return &Cmd{line}, nil
	}
	return &Entrypoint{line}, nil
}

func (in *Instruction) shell() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	words, json, err := jsonWords(in.rest)
	switch {
	case err != nil:
		return nil, in.fault(in.restAt, err)
	case !json:
		return nil, in.faultf(in.restAt, `SHELL takes the JSON form: ["/bin/sh", "-c"]`)
	case len(words) == 0:
		return nil, in.needsOne()
	}
	return &Shell{words}, nil
}

func (in *Instruction) single() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	if in.rest == "" {
		return nil, in.faultf(0, "%s takes one argument", in.Keyword)
	}
	switch in.Keyword {
	case "WORKDIR":
		return &Workdir{in.rest}, nil
	case "USER":
		return &User{in.rest}, nil
	case "STOPSIGNAL":
		return &StopSignal{in.rest}, nil
	}
	return &Maintainer{in.rest}, nil
}

func (in *Instruction) several() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	args := texts(fields(in.rest, in.restAt))
	if in.Keyword == "EXPOSE" {
		if len(args) == 0 {
			return nil, in.needsOne()
		}
		return &Expose{args}, nil
	}
	list, json, err := jsonWords(in.rest)
	switch {
	case err != nil:
		return nil, in.fault(in.restAt, err)
	case json:
		args = list
	}
	if len(args) == 0 {
		return nil, in.needsOne()
	}
	for i, path := range args {
		if args[i] = strings.TrimSpace(path); args[i] == "" {
			return nil, in.faultf(in.restAt, "a volume has an empty path")
		}
	}
	return &Volume{args}, nil
}

func (in *Instruction) healthcheck() (Command, error) {
	c := &Healthcheck{}
	retries := ""
	err := flagSet{
		in:   in,
		strs: map[string]*string{"retries": &retries},
		times: map[string]*time.Duration{
			"interval": &c.Interval, "timeout": &c.Timeout,
			"start-period": &c.StartPeriod, "start-interval": &c.StartInterval,
		},
	}.parse()
	if err != nil {
		return nil, err
	}
	if retries != "" {
		if c.Retries, err = strconv.Atoi(retries); err != nil || c.Retries < 0 {
			return nil, in.Fault("--retries", fmt.Errorf("--retries=%s: a number from 0 up is meant", retries))
		}
	}
	kind, rest, _ := cutSpace(in.rest)
	restAt := len(in.Text) - len(rest)
	switch strings.ToUpper(kind) {
	case "":
		return nil, in.needsOne()
	case "NONE":
		if rest != "" || len(in.flags) > 0 {
			return nil, in.faultf(in.restAt, "HEALTHCHECK NONE takes no arguments")
		}
		c.Test = []string{"NONE"}
	case "CMD":
		line, err := in.commandLine(rest, restAt)
		switch {
		case err != nil:
			return nil, err
		case len(line.Words) == 0:
			return nil, in.faultf(len(in.Text), "HEALTHCHECK CMD has no command")
		case line.Shell:
			c.Test = append([]string{"CMD-SHELL"}, line.Words...)
		default:
			c.Test = append([]string{"CMD"}, line.Words...)
		}
	default:
		return nil, in.faultf(in.restAt, "HEALTHCHECK %s: CMD or NONE is meant", kind)
	}
	return c, nil
}

var errNotOnbuild = errors.New("not allowed as an ONBUILD trigger")

func (in *Instruction) onbuild() (Command, error) {
	if err := in.noFlags(); err != nil {
		return nil, err
	}
	if in.rest == "" {
		return nil, in.needsOne()
	}
	// The trigger's own faults are shown where it stands here.
	inner := &Instruction{
		Text: in.rest, Start: in.Start, End: in.End, file: in.file, heredocs: in.heredocs,
	}
	for _, p := range in.pieces {
		if p.at <= in.restAt {
			inner.pieces = []piece{{0, p.line, p.column + in.restAt - p.at}}
			continue
		}
		inner.pieces = append(inner.pieces, piece{p.at - in.restAt, p.line, p.column})
	}
	inner.split()
	switch inner.Keyword {
	case "FROM", "MAINTAINER", "ONBUILD":
		return nil, inner.fault(0, fmt.Errorf("%s: %w", inner.Keyword, errNotOnbuild))
	}
	if err := inner.parse(); err != nil {
		return nil, err
	}
	var text strings.Builder
	text.WriteString(in.rest)
	for _, doc := range in.heredocs {
		text.WriteString("\n" + doc.Content + doc.Name)
	}
	return &Onbuild{text.String()}, nil
}
