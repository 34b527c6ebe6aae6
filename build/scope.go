package build

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"nook/build/dockerfile"
	"nook/images"
	"nook/internal/hint"
)

// scope is the variables that an instruction sees: ENV's win over ARG's, as
// the Dockerfile reference says.
type scope struct {
	escape rune
	env    []string          // NAME=VALUE, the config's own
	args   map[string]string // declared, with a value
	given  *int              // bytes of values that were put in
}

// maxGiven bounds what a stage's variables expand to: with ARG A=$B$B and
// ARG B=$A$A sixty lines would be more than any memory.
const maxGiven = 16 << 20

var errExpands = hint.Errorf("do some of them repeat each other, as ARG A=$B$B does?",
	"the stage's variables expand to more than %d MiB", maxGiven>>20)

// Get and Keys make it a shell.EnvGetter.
func (s *scope) Get(name string) (string, bool) {
	value, ok := s.value(name)
	if *s.given += len(value); *s.given > maxGiven {
		value = "" // whoever asked for a word gets errExpands
	}
	return value, ok
}

func (s *scope) value(name string) (string, bool) {
	for _, entry := range slices.Backward(s.env) {
		if n, value, _ := strings.Cut(entry, "="); n == name {
			return value, true
		}
	}
	value, ok := s.args[name]
	return value, ok
}

// Keys are the names of all variables.
func (s *scope) Keys() []string {
	var keys []string
	for _, entry := range s.env {
		name, _, _ := strings.Cut(entry, "=")
		keys = append(keys, name)
	}
	for name := range s.args {
		keys = append(keys, name)
	}
	return keys
}

// word expands variables and takes quotes and escapes away.
func (s *scope) word(text string) (string, error) {
	if !strings.ContainsAny(text, "$'\"\\`") {
		return text, nil
	}
	out, _, err := shell.NewLex(s.escape).ProcessWord(text, s)
	if err != nil && strings.Count(text, "${") > strings.Count(text, "}") {
		err = fmt.Errorf("a ${ in %s has no }", text)
	}
	return out, s.check(err)
}

// words is word for a list of which one may become several.
func (s *scope) words(texts []string) ([]string, error) {
	var all []string
	for _, text := range texts {
		words, err := shell.NewLex(s.escape).ProcessWords(text, s)
		if err = s.check(err); err != nil {
			return nil, err
		}
		all = append(all, words...)
	}
	return all, nil
}

// document expands a heredoc, whose quotes stay.
func (s *scope) document(text string) (string, error) {
	lex := shell.NewLex('\\')
	lex.SkipProcessQuotes = true
	out, _, err := lex.ProcessWord(text, s)
	return out, s.check(err)
}

func (s *scope) check(err error) error {
	if *s.given > maxGiven {
		return errExpands
	}
	return err
}

// set puts a variable into a list of NAME=VALUE, in its old place.
func set(env []string, name, value string) []string {
	for i, entry := range env {
		if n, _, _ := strings.Cut(entry, "="); n == name {
			env = slices.Clone(env)
			env[i] = name + "=" + value
			return env
		}
	}
	return append(slices.Clip(env), name+"="+value)
}

// platformArgs are the arguments that are there without being declared before
// the first FROM, and need no value where a stage declares them.
func (p *plan) platformArgs() map[string]string {
	args := map[string]string{}
	for prefix, pl := range map[string]images.Platform{"BUILD": images.HostPlatform(), "TARGET": p.platform} {
		args[prefix+"PLATFORM"] = pl.String()
		args[prefix+"OS"] = pl.OS
		args[prefix+"ARCH"] = pl.Architecture
		args[prefix+"VARIANT"] = pl.Variant
		if pl.Architecture == "arm64" && pl.Variant == "v8" {
			args[prefix+"VARIANT"] = "" // as containerd normalizes it
		}
	}
	args["TARGETSTAGE"] = p.o.Target
	if p.o.Target == "" {
		args["TARGETSTAGE"] = "default"
	}
	return args
}

// predefined are arguments that RUN gets without ARG, when they are given, and
// that don't count for the cache.
func predefined(name string) bool {
	switch strings.ToUpper(name) {
	case "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY":
		return true
	case "SOURCE_DATE_EPOCH":
		return true
	}
	return strings.HasPrefix(name, "BUILDKIT_")
}

// isProxy are those of them that RUN sees.
func isProxy(name string) bool {
	return strings.HasSuffix(strings.ToUpper(name), "_PROXY") && predefined(name)
}

// globalArg takes an ARG before the first FROM.
func (p *plan) globalArg(in *dockerfile.Instruction, c *dockerfile.Arg) error {
	for _, arg := range c.Args {
		value, ok := p.o.Args[arg.Name]
		if !ok && arg.Default != nil {
			var err error
			if value, err = p.global.word(*arg.Default); err != nil {
				return in.Fault(arg.Name, err)
			}
			ok = true
		}
		if ok {
			p.global.args[arg.Name] = value
		}
	}
	return nil
}
