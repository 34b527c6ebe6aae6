package build

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

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
	names  map[string]int    // where they stand in env
	args   map[string]string // declared, with a value
	given  *int              // bytes of values that were put in
	work   *atomic.Int64     // what patterns cost, of the whole build

	// Of the word that is read:
	lexing  dockerfile.Lexing
	taken   int  // as given
	notText bool // a pattern would be of bytes that are no text
}

// maxGiven bounds what a stage's variables expand to: with ARG A=$B$B and
// ARG B=$A$A sixty lines would be more than any memory.
const maxGiven = 16 << 20

// maxWork bounds what looking for patterns costs a build, about in tens of
// nanoseconds: lengths of patterns times lengths of the values they are for.
// What ${x//a/b} makes of a value is no longer than that either. Words in ${} of
// words are in it too, as the lexer copies them at each level.
const (
	maxWork     = 1 << 28
	matchCost   = 64  // of each match and each value, whatever the pattern
	patternCost = 256 // of each character, to make an expression of it
)

var (
	errExpands = hint.Errorf("do some of them repeat each other, as ARG A=$B$B does?",
		"the stage's variables expand to more than %d MiB", maxGiven>>20)
	errWork = hint.Errorf("patterns (${x//a/b}) of long values, and ${} inside of each other, are better done by a command in RUN",
		"expanding the variables is too much work")
	errNotText = errors.New("a variable in a pattern has bytes that are not text")
)

// Get and Keys make it a shell.EnvGetter. Nothing in it can end the lexer's
// work: past a bound it goes on with empty values, and whoever asked for the
// word gets the error.
func (s *scope) Get(name string) (string, bool) {
	value, ok := s.value(name)
	*s.given += len(value)
	if s.lexing.Pattern > 0 {
		pattern := s.lexing.Pattern
		if s.lexing.Varies {
			pattern += s.taken
			s.work.Add(int64(len(value)) * patternCost)
			s.notText = s.notText || !isText(value)
		}
		s.work.Add(int64(pattern+matchCost) * int64(len(value)+matchCost))
	}
	s.taken += len(value)
	if s.over() != nil {
		value = ""
	}
	return value, ok
}

func (s *scope) value(name string) (string, bool) {
	if i, ok := s.names[name]; ok {
		_, value, _ := strings.Cut(s.env[i], "=")
		return value, true
	}
	value, ok := s.args[name]
	return value, ok
}

// Keys are the names of all variables.
func (s *scope) Keys() []string {
	return slices.AppendSeq(slices.Collect(maps.Keys(s.names)), maps.Keys(s.args))
}

// word expands variables and takes quotes and escapes away.
func (s *scope) word(text string) (string, error) {
	if !strings.ContainsAny(text, "$'\"\\`") {
		return text, nil
	}
	if err := s.measure(text, s.escape, false); err != nil {
		return "", err
	}
	out, _, err := shell.NewLex(s.escape).ProcessWord(text, s)
	if err != nil && strings.Count(text, "${") > strings.Count(text, "}") {
		err = fmt.Errorf("a ${ in %s has no }", text)
	}
	return out, s.check(out, err)
}

// words is word for a list of which one may become several.
func (s *scope) words(texts []string) ([]string, error) {
	var all []string
	for _, text := range texts {
		if err := s.measure(text, s.escape, false); err != nil {
			return nil, err
		}
		words, err := shell.NewLex(s.escape).ProcessWords(text, s)
		if err = s.check("", err); err != nil {
			return nil, err
		}
		all = append(all, words...)
	}
	return all, nil
}

// document expands a heredoc, whose quotes stay.
func (s *scope) document(text string) (string, error) {
	if err := s.measure(text, '\\', true); err != nil {
		return "", err
	}
	lex := shell.NewLex('\\')
	lex.SkipProcessQuotes = true
	out, _, err := lex.ProcessWord(text, s)
	return out, s.check(out, err)
}

// measure refuses what the lexer shouldn't see, and begins a word.
func (s *scope) measure(text string, escape rune, raw bool) (err error) {
	s.taken, s.notText = 0, false
	if s.lexing, err = dockerfile.MeasureWord(text, escape, raw); err != nil {
		return err
	}
	s.work.Add(int64(s.lexing.Patterns)*patternCost + int64(max(s.lexing.Depth-1, 0))*int64(len(text)))
	return s.over()
}

func (s *scope) check(out string, err error) error {
	switch over := s.over(); {
	case over != nil:
		return over
	case len(out) > maxGiven:
		return errExpands
	}
	return err
}

// over is the bound that was passed.
func (s *scope) over() error {
	switch {
	case *s.given > maxGiven:
		return errExpands
	case s.work.Load() > maxWork:
		return errWork
	case s.notText:
		return errNotText
	}
	return nil
}

// isText says whether text/scanner takes it, which the packages that read
// patterns use: it tells standard error of what it doesn't take.
func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

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
	return name == argKeepGitDir || name == argHostname
}

// Of buildkit's own arguments those that mean something here.
const (
	argKeepGitDir = "BUILDKIT_CONTEXT_KEEP_GIT_DIR" // leave a context's .git there
	argHostname   = "BUILDKIT_SANDBOX_HOSTNAME"     // of RUN
)

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
