package dockerfile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"nook/internal/hint"
)

// piece says that Text from byte at on comes from this line and column.
type piece struct{ at, line, column int }

// maxSize bounds a Dockerfile; docker's own limit is a line of 64 KiB.
const maxSize = 16 << 20

// mostInstructions is more than anybody wrote.
const mostInstructions = 100_000

var (
	errUnterminated = errors.New("unterminated heredoc")
	errNotText      = errors.New("not UTF-8 text")
	errNUL          = errors.New("a NUL byte is in it")
)

// Parse reads a Dockerfile. name is for messages. Errors are of type *Error.
func Parse(name string, data []byte) (*File, error) {
	f := &File{Name: name, Escape: '\\'}
	if len(data) > maxSize {
		return nil, &Error{File: name, Err: fmt.Errorf("larger than %d MiB", maxSize>>20)}
	}
	data = []byte(strings.TrimPrefix(string(data), "\ufeff"))
	f.lines = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i, line := range f.lines {
		f.lines[i] = strings.TrimRight(line, "\r")
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, f.notText()
	}
	next, err := f.directives()
	if err != nil {
		return nil, err
	}
	for next < len(f.lines) {
		in, after, err := f.instruction(next)
		if err != nil {
			return nil, err
		}
		next = after
		if in == nil {
			continue
		}
		if len(f.Commands) == mostInstructions {
			return nil, in.faultf(0, "more than %d instructions", mostInstructions)
		}
		if err := in.parse(); err != nil {
			return nil, err
		}
		f.Commands = append(f.Commands, *in)
	}
	if len(f.Commands) == 0 {
		return nil, &Error{File: name, Err: hint.Errorf("a Dockerfile begins with FROM", "file with no instructions")}
	}
	return f, nil
}

// notText is the fault of a file that isn't UTF-8, or has a NUL byte: names,
// arguments and variables would silently end there (execve(2)).
func (f *File) notText() *Error {
	fault := &Error{File: f.Name, Err: errNotText, lines: f.lines}
	for i, line := range f.lines {
		nul := strings.IndexByte(line, 0)
		if utf8.ValidString(line) && nul < 0 {
			continue
		}
		fault.Start, fault.End, fault.Line, fault.Column = i+1, i+1, i+1, 1
		if nul >= 0 {
			fault.Err, fault.Column = errNUL, nul+1
		}
		break
	}
	return fault
}

// directives reads the comments at the top that mean something: escape, syntax
// and check. The first line that is no directive ends them.
func (f *File) directives() (next int, err error) {
	seen := map[string]bool{}
	for i, line := range f.lines {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#")
		name, value, assigned := strings.Cut(comment, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok || !assigned || value == "" || !slices.Contains([]string{"escape", "syntax", "check"}, name) {
			return i, nil
		}
		fault := func(format string, args ...any) error {
			return &Error{
				File: f.Name, Start: i + 1, End: i + 1, Line: i + 1,
				Column: 1 + strings.Index(line, "#"), Err: fmt.Errorf(format, args...), lines: f.lines,
			}
		}
		if seen[name] {
			return 0, fault("only one %s parser directive can be used", name)
		}
		seen[name] = true
		switch {
		case name == "syntax":
			f.Syntax = value
		case name == "escape" && value != `\` && value != "`":
			return 0, fault("escape=%s: a backslash or a backtick is meant", value)
		case name == "escape":
			f.Escape = rune(value[0])
		}
	}
	return len(f.lines), nil
}

// instruction joins the lines of one instruction, from line i on (counted from
// 0), and reads its heredocs. It returns nil for an empty line or a comment.
func (f *File) instruction(i int) (*Instruction, int, error) {
	if blank(f.lines[i]) {
		return nil, i + 1, nil
	}
	in := &Instruction{Start: i + 1, file: f}
	var text strings.Builder
	empty := false
	for goesOn := true; goesOn && i < len(f.lines); i++ {
		line := f.lines[i]
		if comment(line) || i+1 > in.Start && blank(line) {
			empty = empty || !comment(line)
			continue
		}
		column := 1
		if i+1 == in.Start {
			trimmed := strings.TrimLeftFunc(line, unicode.IsSpace)
			column += len(line) - len(trimmed)
			line = trimmed
		}
		in.pieces = append(in.pieces, piece{text.Len(), i + 1, column})
		line, goesOn = f.continued(line)
		text.WriteString(line)
		in.End = i + 1
	}
	in.Text = strings.TrimRightFunc(text.String(), unicode.IsSpace)
	if in.Text == "" {
		return nil, i, nil
	}
	if empty {
		f.Warnings = append(f.Warnings, fmt.Sprintf("%s:%d: empty continuation line", f.Name, in.Start))
	}
	in.split()
	i, err := f.heredocs(in, i)
	return in, i, err
}

func blank(line string) bool { return strings.TrimSpace(line) == "" || comment(line) }

func comment(line string) bool {
	return strings.HasPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), "#")
}

// continued takes the escape character off the end of a line that goes on in
// the next one. One that is escaped itself doesn't count.
func (f *File) continued(line string) (string, bool) {
	trimmed := strings.TrimRight(line, " \t")
	escape := string(f.Escape)
	before, ok := strings.CutSuffix(trimmed, escape)
	if !ok || strings.HasSuffix(before, escape) {
		return line, false
	}
	return before, true
}

// heredocs reads the documents that the instruction's words begin, from line i
// on, and returns the line after them.
func (f *File) heredocs(in *Instruction, i int) (int, error) {
	if !in.mayHaveHeredocs() || !strings.Contains(in.rest, "<<") {
		return i, nil
	}
	if _, err := MeasureWord(in.rest, '\\', false); err != nil {
		return 0, in.Fault("${", err)
	}
	lex := shell.NewLex('\\')
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	// A line that isn't the shell's grammar has none, as with docker.
	words, _ := lex.ProcessWords(in.rest, noEnv{})
	for _, w := range words {
		doc, ok := heredocWord(w)
		if !ok {
			continue
		}
		var content strings.Builder
		for ended := false; !ended; i++ {
			if i >= len(f.lines) {
				return 0, in.Fault("<<", errUnterminated)
			}
			line := f.lines[i]
			if doc.Chomp {
				line = strings.TrimLeft(line, "\t")
			}
			if ended = line == doc.Name; !ended {
				content.WriteString(f.lines[i] + "\n")
			}
		}
		doc.Content = content.String()
		in.heredocs = append(in.heredocs, doc)
		in.End = i
	}
	return i, nil
}

// mayHaveHeredocs says whether the instruction, or the one inside an ONBUILD,
// is of a kind that takes them.
func (in *Instruction) mayHaveHeredocs() bool {
	keyword, rest := in.Keyword, in.rest
	if keyword == "ONBUILD" {
		inner := Instruction{Text: rest, file: in.file}
		inner.split()
		keyword, rest = inner.Keyword, inner.rest
	}
	switch keyword {
	case "RUN", "COPY", "ADD":
		_, json, _ := jsonWords(rest)
		return !json
	}
	return false
}

// heredocWord reads a word such as 3<<-'EOF'. What stands behind << is quoted
// if the content is not to be expanded.
func heredocWord(w string) (Heredoc, bool) {
	w = strings.TrimLeft(w, "0123456789")
	w, ok := strings.CutPrefix(w, "<<")
	if !ok {
		return Heredoc{}, false
	}
	w, chomp := strings.CutPrefix(w, "-")
	w = strings.TrimSpace(w)
	if w == "" || strings.Contains(w, "<") {
		return Heredoc{}, false
	}
	if _, err := MeasureWord(w, '\\', false); err != nil {
		return Heredoc{}, false
	}
	lex := shell.NewLex('\\')
	lex.SkipUnsetEnv = true
	plain, err := lex.ProcessWords(w, noEnv{})
	if err != nil || len(plain) != 1 {
		return Heredoc{}, false
	}
	quotes := strings.Count(w, `'`) + strings.Count(w, `"`)
	left := strings.Count(plain[0], `'`) + strings.Count(plain[0], `"`)
	return Heredoc{Name: plain[0], Chomp: chomp, Expand: quotes == left}, true
}

// Text is the document as it is used: without leading tabs where <<- says so.
func (h Heredoc) Text() string {
	if !h.Chomp {
		return h.Content
	}
	lines := strings.SplitAfter(h.Content, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], "\t")
	}
	return strings.Join(lines, "")
}

type noEnv struct{}

func (noEnv) Get(string) (string, bool) { return "", false }
func (noEnv) Keys() []string            { return nil }

// IsHeredoc says whether a word begins a heredoc and is nothing else.
func IsHeredoc(word string) bool {
	_, ok := heredocWord(word)
	return ok
}
