package dockerfile

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// word is a word and where it stands in an instruction's text.
type word struct {
	text string
	at   int
}

// isSpace is what stands between words: in ASCII alone, so that a name may have
// a no-break space. ENV, LABEL and ARG take any white space (words).
func isSpace(r rune) bool { return r == ' ' || r >= '\t' && r <= '\r' }

// split takes an instruction's text apart: keyword, flags, rest.
func (in *Instruction) split() {
	end := strings.IndexFunc(in.Text, isSpace)
	if end < 0 {
		end = len(in.Text)
	}
	in.Keyword = strings.ToUpper(in.Text[:end])
	in.restAt = end
	for {
		in.restAt += len(in.Text[in.restAt:]) - len(strings.TrimLeftFunc(in.Text[in.restAt:], isSpace))
		rest := in.Text[in.restAt:]
		if !strings.HasPrefix(rest, "--") {
			break
		}
		flag, n := in.file.unquoted(rest)
		at := in.restAt
		in.restAt += n
		if flag == "--" {
			in.restAt += len(rest[n:]) - len(strings.TrimLeftFunc(rest[n:], isSpace))
			break
		}
		in.flags = append(in.flags, word{flag, at})
	}
	in.rest = in.Text[in.restAt:]
}

// unquoted reads one word at the beginning of s without its quotes and
// escapes, and tells how many bytes it was.
func (f *File) unquoted(s string) (text string, n int) {
	var b strings.Builder
	var quote rune
	for n < len(s) {
		r, size := utf8.DecodeRuneInString(s[n:])
		switch {
		case r == f.Escape:
			n += size
			if n == len(s) {
				return b.String(), n
			}
			r, size = utf8.DecodeRuneInString(s[n:])
			b.WriteRune(r)
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case quote == 0 && isSpace(r):
			return b.String(), n
		default:
			b.WriteRune(r)
		}
		n += size
	}
	return b.String(), n
}

// words splits s at white space outside of quotes. Quotes and escapes stay:
// they are taken away when variables are expanded.
func (f *File) words(s string, at int) []word {
	var words []word
	var b strings.Builder
	var quote rune
	begin, inWord := 0, false
	flush := func() {
		if inWord {
			words = append(words, word{b.String(), at + begin})
		}
		b.Reset()
		inWord = false
	}
	for n := 0; n < len(s); {
		r, size := utf8.DecodeRuneInString(s[n:])
		if quote == 0 && unicode.IsSpace(r) {
			flush()
			n += size
			continue
		}
		if !inWord {
			begin, inWord = n, true
		}
		switch {
		case r == f.Escape && quote != '\'':
			if n+size == len(s) {
				n += size
				continue // nothing is left to escape
			}
			b.WriteRune(r)
			n += size
			r, size = utf8.DecodeRuneInString(s[n:])
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		}
		b.WriteRune(r)
		n += size
	}
	flush()
	return words
}

// fields splits s at white space, quotes or not.
func fields(s string, at int) []word {
	var words []word
	for begin := -1; len(s) > 0 || begin >= 0; {
		trimmed := strings.TrimLeftFunc(s, isSpace)
		at += len(s) - len(trimmed)
		end := strings.IndexFunc(trimmed, isSpace)
		if end < 0 {
			end = len(trimmed)
		}
		if end == 0 {
			break
		}
		words = append(words, word{trimmed[:end], at})
		s, at = trimmed[end:], at+end
	}
	return words
}

var errNotStrings = errors.New("a JSON array of an instruction has strings only")

// jsonWords reads the JSON form. What is no JSON array is the other form, as
// with docker; an array of something else than strings is an error.
func jsonWords(s string) (words []string, ok bool, err error) {
	if !strings.HasPrefix(s, "[") || !json.Valid([]byte(s)) {
		return nil, false, nil
	}
	var list []any
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, false, err
	}
	words = []string{}
	for _, one := range list {
		text, ok := one.(string)
		if !ok {
			return nil, false, errNotStrings
		}
		if strings.Contains(text, "\x00") {
			return nil, false, errNUL
		}
		words = append(words, text)
	}
	return words, true, nil
}

func texts(words []word) []string {
	var all []string
	for _, w := range words {
		all = append(all, w.text)
	}
	return all
}
