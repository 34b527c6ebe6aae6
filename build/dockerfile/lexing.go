package dockerfile

import (
	"strings"
	"unicode"

	"nook/internal/hint"
)

// Lexing is what buildkit's lexer (package shell) will have to do for a word.
// It calls itself for each level of ${x:-...}, which ends the process when its
// stack is full, and makes a regular expression of each pattern, so a word is
// measured before the lexer gets it.
type Lexing struct {
	Depth int // of variables inside of each other's ${}
	// Pattern is the length of the longest pattern with its replacement, as of
	// ${x//a/b}; Patterns is that of all of them.
	Pattern, Patterns int
	// Varies: a pattern has variables in it, whose values count too.
	Varies bool
}

// deepest is how many ${ may stand inside of each other.
const deepest = 100

var errNested = hint.Errorf("set a variable for the inner part by an ARG before it", "more than %d ${ inside of each other", deepest)

// MeasureWord reads a word as the lexer will; raw says that quotes are
// characters like others, as in heredocs. The error is that of a word that
// nobody should give to the lexer. What the lexer will refuse is none.
func MeasureWord(text string, escape rune, raw bool) (Lexing, error) {
	m := measure{text: text, escape: string(escape), raw: raw}
	for m.at < len(text) && m.err == nil && !m.ended {
		m.step()
	}
	return m.Lexing, m.err
}

// measure is the lexer's state. Each open part ends with a character: "}" or
// "/" of a ${}, `"` of a string.
type measure struct {
	Lexing
	text, escape string
	raw          bool
	at           int
	open         []openPart
	levels       int  // of ${}
	ended        bool // the lexer ends here, with an error
	err          error
}

type openPart struct {
	stop    byte
	pattern bool // of a pattern, or its replacement
	begin   int
}

// next says whether text stands here, and goes behind it.
func (m *measure) next(text string) bool {
	ok := strings.HasPrefix(m.text[m.at:], text)
	if ok {
		m.at += len(text)
	}
	return ok
}

// step goes on by one character, or by what the lexer takes as one.
func (m *measure) step() {
	part := openPart{}
	if n := len(m.open); n > 0 {
		part = m.open[n-1]
	}
	quoted := part.stop == '"'
	switch c := m.text[m.at]; {
	case part.stop != 0 && c == part.stop:
		m.at++
		m.close(part)
	case c == '$':
		m.at++
		m.dollar()
	case c == '\'' && !quoted && !m.raw:
		end := strings.IndexByte(m.text[m.at+1:], '\'')
		m.ended = end < 0
		m.at += end + 2
	case c == '"' && !m.raw:
		m.at++
		m.push(openPart{stop: '"'})
	case m.next(m.escape):
		// In a string it is one only before these.
		if !quoted || strings.HasPrefix(m.text[m.at:], `"`) || strings.HasPrefix(m.text[m.at:], "$") ||
			strings.HasPrefix(m.text[m.at:], m.escape) {
			m.at = min(m.at+1, len(m.text))
		}
	default:
		m.at++
	}
}

func (m *measure) push(part openPart) {
	m.open = append(m.open, part)
	if part.stop != '"' {
		m.levels++
	}
}

func (m *measure) close(part openPart) {
	m.open = m.open[:len(m.open)-1]
	if part.stop != '"' {
		m.levels--
	}
	if part.pattern && part.stop == '/' { // what replaces it follows
		m.push(openPart{'}', true, part.begin})
		return
	}
	if part.pattern {
		m.Pattern = max(m.Pattern, m.at-part.begin)
		m.Patterns += m.at - part.begin
	}
}

// dollar is what follows a $.
func (m *measure) dollar() {
	if m.Depth = max(m.Depth, m.levels+1); m.Depth > deepest {
		m.err = errNested
	}
	for _, part := range m.open {
		m.Varies = m.Varies || part.pattern
	}
	if !m.next("{") {
		m.name()
		return
	}
	if m.at == len(m.text) || strings.IndexByte("{}:", m.text[m.at]) >= 0 {
		m.ended = true
		return
	}
	m.name()
	switch {
	case m.next("}"):
	case m.next(":"):
		m.at = min(m.at+1, len(m.text))
		m.push(openPart{stop: '}'})
	case m.next("+"), m.next("-"), m.next("?"):
		m.push(openPart{stop: '}'})
	case m.next("#"), m.next("%"):
		m.push(openPart{'}', true, m.at})
	case m.next("/"):
		m.next("/")
		m.push(openPart{'/', true, m.at})
	default:
		m.ended = true
	}
}

// name goes behind the one that stands here.
func (m *measure) name() {
	rest := m.text[m.at:]
	digits := len(rest) - len(strings.TrimLeftFunc(rest, unicode.IsDigit))
	switch {
	case digits > 0:
		m.at += digits
	case rest != "" && strings.IndexByte("@*#?-$!", rest[0]) >= 0:
		m.at++
	default:
		m.at += len(rest) - len(strings.TrimLeftFunc(rest, func(r rune) bool {
			return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)
		}))
	}
}
