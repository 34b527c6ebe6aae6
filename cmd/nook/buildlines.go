package main

import (
	"strings"
	"unicode/utf8"
)

// openLine is the line that a command's output ends in, of which more may come.
// A progress bar writes over its line for as long as it likes, and who writes no
// line end at all may write gigabytes: what was overwritten goes, and a line
// without an end is given away in pieces.
type openLine struct {
	b []byte
	// over: it ends in a carriage return, and what comes next stands in its place.
	over bool
}

// mostOpen is how many bytes of a line wait for its end.
const mostOpen = 64 << 10

// write takes what was written, and gives each line that ends in it.
func (l *openLine) write(text string, line func(string)) {
	for text != "" {
		piece, rest, ended := strings.Cut(text, "\n")
		l.add(piece, line)
		if ended {
			line(string(l.b))
			*l = openLine{b: l.b[:0]}
		}
		text = rest
	}
}

// end gives what has no end yet, if there is something.
func (l *openLine) end(line func(string)) {
	if len(l.b) > 0 {
		line(string(l.b))
	}
	*l = openLine{}
}

func (l *openLine) add(piece string, line func(string)) {
	shown := strings.TrimRight(piece, "\r")
	if shown != "" {
		if i := strings.LastIndexByte(shown, '\r'); i >= 0 || l.over {
			l.b, shown = l.b[:0], shown[i+1:]
		}
		l.over = false
	}
	l.over = l.over || strings.HasSuffix(piece, "\r")
	for len(l.b)+len(shown) > mostOpen {
		n := mostOpen - len(l.b)
		// A character stays whole, unless these are none.
		for i := 0; i < utf8.UTFMax && n > 0 && !utf8.RuneStart(shown[n]); i++ {
			n--
		}
		line(string(l.b) + shown[:n])
		l.b, shown = l.b[:0], shown[n:]
	}
	l.b = append(l.b, shown...)
}
