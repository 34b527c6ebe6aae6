package dockerfile

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// witness counts how often the lexer called itself when it asks for a variable.
type witness struct{ depth int }

func (w *witness) Keys() []string { return nil }

func (w *witness) Get(string) (string, bool) {
	pcs := make([]uintptr, 1000)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs)])
	depth := 0
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".processDollar") {
			depth++
		}
		if !more {
			w.depth = max(w.depth, depth)
			return "v", true
		}
	}
}

// What is measured is what the lexer then does, whatever quotes, escapes and
// patterns make of a brace.
func TestMeasureWordIsTheLexers(t *testing.T) {
	tokens := []string{
		"${x:-", "${x:-", "${x+", "${x?", "${x#", "${x%%", "${x/", "${x//", "}", "}", "}", "/", `"`, `"`, "'", `\`, "`",
		"$x", "${x}", "a", " ", "<<", "ü", `\}`, `\"`, `'}'`, `"}"`, "$1", "$@", "${xy_1:+", "{",
	}
	rng := rand.New(rand.NewPCG(1, 2))
	exact := 0
	for range 20000 {
		var b strings.Builder
		for range rng.IntN(14) {
			b.WriteString(tokens[rng.IntN(len(tokens))])
		}
		text := b.String()
		for _, escape := range "\\`" {
			for _, raw := range []bool{false, true} {
				lex := shell.NewLex(escape)
				lex.SkipProcessQuotes = raw
				var seen witness
				_, _, lexed := lex.ProcessWord(text, &seen)
				got, err := MeasureWord(text, escape, raw)
				if err != nil || seen.depth > got.Depth || lexed == nil && seen.depth != got.Depth {
					t.Fatalf("%q, escape %c, raw %t: measured %d, the lexer went to %d: %v, %v", text, escape, raw, got.Depth, seen.depth, err, lexed)
				}
				if lexed == nil && got.Depth > 1 {
					exact++
				}
			}
		}
	}
	if exact < 1000 {
		t.Errorf("only %d of the words were nested and whole", exact)
	}
}

func TestMeasureWord(t *testing.T) {
	for text, want := range map[string]Lexing{
		"":                     {},
		"plain":                {},
		"$a ${b} ${c:-d}":      {Depth: 1},
		"${a:-${b:-c}}":        {Depth: 2},
		"${a#b*} ${c//de/f}":   {Depth: 1, Pattern: 5, Patterns: 8},
		"${a%$b}":              {Depth: 2, Pattern: 3, Patterns: 3, Varies: true},
		`${a/b/${c:-"$d"}} $e`: {Depth: 3, Pattern: 13, Patterns: 13, Varies: true},
	} {
		if got, err := MeasureWord(text, '\\', false); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// The lexer's stack would end the process.
func TestDeepWordsAreRefused(t *testing.T) {
	deep := strings.Repeat("${x:-", 1_000_000) + "y" + strings.Repeat("}", 1_000_000)
	hidden := strings.Repeat(`"${x:-'}'`, 1_000_000)
	for _, word := range []string{deep, hidden, strings.Repeat("${x//${x#", 500_000)} {
		if _, err := MeasureWord(word, '\\', false); !errors.Is(err, errNested) {
			t.Errorf("%.20s: %v", word, err)
		}
	}
	if _, err := MeasureWord(strings.Repeat("${x:-", deepest)+strings.Repeat("}", deepest), '\\', false); err != nil {
		t.Errorf("as deep as may be: %v", err)
	}
	// Many beside each other are none inside of each other.
	if _, err := MeasureWord(strings.Repeat("${x:-y}", 10*deepest), '\\', false); err != nil {
		t.Errorf("beside each other: %v", err)
	}
	// Words of heredocs are lexed when the file is read.
	_, err := Parse("Dockerfile", []byte("FROM x\nRUN cat <<E "+deep+"\nE\n"))
	var fault *Error
	if !errors.As(err, &fault) || !errors.Is(err, errNested) || fault.Line != 2 || fault.Column != 13 {
		t.Errorf("beside a heredoc: %.200v", err)
	}
	// In quotes it is no variable to the line, but it is to the word alone.
	if _, ok := heredocWord("<<" + deep); ok {
		t.Error("a heredoc's name of a million levels")
	}
}
