package main

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
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
