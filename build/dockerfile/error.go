package dockerfile

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error is a fault in a Dockerfile, with its place.
type Error struct {
	File       string
	Start, End int // lines, counted from 1; 0: the whole file
	Column     int // of line Line, counted from 1
	Line       int
	Err        error

	lines []string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// around is how many lines before and after the instruction are shown.
const around = 2

// most is how many lines of one instruction are shown.
const most = 12

// widest is how many characters of a line are shown; the caret of a fault
// after them is left out.
const widest = 500

// Excerpt shows the place: the instruction's lines marked, those around them,
// and a caret below the fault. It is empty for a file without lines.
//
//	Dockerfile:2
//	   1 |     FROM debian
//	   2 | >>> RUNN true
//	     |     ^
func (e *Error) Excerpt() string {
	if e.Line == 0 || e.Line > len(e.lines) {
		return ""
	}
	first, last := max(e.Start-around, 1), min(e.End+around, len(e.lines))
	if last-first > most {
		first, last = max(e.Line-most/2, first), min(e.Line+most/2, last)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n", e.File, e.Line)
	for n := first; n <= last; n++ {
		mark := "   "
		if n >= e.Start && n <= e.End {
			mark = ">>>"
		}
		line := narrow(printable(e.lines[n-1]))
		b.WriteString(strings.TrimRight(fmt.Sprintf("%4d | %s %s", n, mark, line), " ") + "\n")
		if n != e.Line || e.Column <= 0 {
			continue
		}
		if before := utf8.RuneCountInString(cut(e.lines[n-1], e.Column-1)); before <= widest {
			fmt.Fprintf(&b, "     |     %s^\n", strings.Repeat(" ", before))
		}
	}
	return b.String()
}

func cut(line string, n int) string { return line[:min(max(n, 0), len(line))] }

func narrow(line string) string {
	seen := 0
	for i := range line {
		if seen++; seen > widest {
			return line[:i] + "…"
		}
	}
	return line
}

// printable keeps a line of the file from moving the cursor.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0:
			return '?'
		}
		return r
	}, line)
}

// Fault is err at the instruction; its place is where needle first stands in
// it, else where the instruction begins.
func (in *Instruction) Fault(needle string, err error) *Error {
	at := 0
	if needle != "" {
		if i := strings.Index(in.Text, needle); i >= 0 {
			at = i
		}
	}
	return in.fault(at, err)
}

// fault is err at the byte at of the instruction's text.
func (in *Instruction) fault(at int, err error) *Error {
	e := &Error{Start: in.Start, End: in.End, Line: in.Start, Column: 1, Err: err}
	if in.file != nil {
		e.File, e.lines = in.file.Name, in.file.lines
	}
	for _, p := range in.pieces {
		if p.at <= at {
			e.Line, e.Column = p.line, p.column+at-p.at
		}
	}
	return e
}

func (in *Instruction) faultf(at int, format string, args ...any) *Error {
	return in.fault(at, fmt.Errorf(format, args...))
}
