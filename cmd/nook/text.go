package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"nook/internal/hint"
)

// oneLine makes text fit for one line of a terminal: line ends become "; ",
// and what a terminal could take for a command is escaped.
func oneLine(text string) string {
	text = strings.TrimRight(text, "\n")
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\n':
			b.WriteString("; ")
		case r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[i]), 16))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// What a message of a build shows of a word and of itself: words of a Dockerfile
// are quoted in it, and may be megabytes.
const (
	longestWord = 200
	longestText = 1000
)

// abridged leaves out of long words, and of a long text, what isn't needed to
// know them: the middle. What is wrong with them stands behind.
func abridged(text string) string {
	var b strings.Builder
	for text != "" && b.Len() < 4*longestText {
		n := strings.IndexByte(text, ' ') + 1
		if n == 0 {
			n = len(text)
		}
		b.WriteString(withoutMiddle(text[:n], longestWord))
		text = text[n:]
	}
	// Of the rest only the end is shown.
	return withoutMiddle(b.String()+text, longestText)
}

// withoutMiddle is text of at most about as many bytes.
func withoutMiddle(text string, most int) string {
	if len(text) <= most {
		return text
	}
	head, tail := most*3/4, len(text)-most/4
	for head > 0 && !utf8.RuneStart(text[head]) {
		head--
	}
	for tail < len(text) && !utf8.RuneStart(text[tail]) {
		tail++
	}
	return text[:head] + "…" + text[tail:]
}

// abridge is err with an abridged text and hint.
func abridge(err error) error {
	short := &abridgedError{err, abridged(err.Error())}
	if advice := hint.Of(err); advice != "" {
		return hint.Wrap(short, abridged(advice))
	}
	return short
}

type abridgedError struct {
	error
	text string
}

func (e *abridgedError) Error() string { return e.text }
func (e *abridgedError) Unwrap() error { return e.error }
