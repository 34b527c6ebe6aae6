package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Help is printed by this file and not by urfave/cli's templates: docker's form
// fits a screen, and flags as the table of options knows them need no template.

// helpWords finds the two ways of asking for help by words: "help run" and
// "image --help". It returns the words to be explained.
func helpWords(words []string) ([]string, bool) {
	if len(words) > 0 && words[0] == "help" {
		return words[1:], true
	}
	if len(words) == 2 && (words[1] == "--help" || words[1] == "-h") {
		if _, ok := findGroup(words[0]); ok {
			return words[:1], true
		}
	}
	return nil, false
}

func (s *shell) helpFor(words []string) error {
	if len(words) == 0 {
		return s.helpAll()
	}
	if v, n := findVerb(words); n > 0 {
		return s.helpVerb(v)
	}
	return s.noVerb(words)
}

func (s *shell) helpAll() error {
	w := s.stdout
	fmt.Fprint(w, "Usage:  nook [OPTIONS] COMMAND\n\nA rootless, daemonless runtime for containers\n")
	var common, other [][2]string
	for _, v := range verbs() {
		switch row := [2]string{v.name, v.about}; {
		case strings.Contains(v.name, " "), v.hidden: // only the group shows it, or nobody
		case v.common:
			common = append(common, row)
		default:
			other = append(other, row)
		}
	}
	list(w, "Common Commands", common)
	var manage [][2]string
	for _, g := range groups() {
		manage = append(manage, [2]string{g.name, g.about})
	}
	list(w, "Management Commands", manage)
	slices.SortFunc(other, byName)
	list(w, "Commands", other)
	printOptions(w, "Global Options", globals())
	fmt.Fprint(w, "\nRun 'nook COMMAND --help' for more information on a command.\nTo begin: nook run hello\n")
	return nil
}

func (s *shell) helpGroup(g group) error {
	fmt.Fprintf(s.stdout, "Usage:  nook %s COMMAND\n\n%s\n", g.name, g.about)
	var rows [][2]string
	for _, v := range verbs() {
		for _, long := range v.long {
			if name, ok := strings.CutPrefix(long, g.name+" "); ok {
				rows = append(rows, [2]string{name, v.about})
				break
			}
		}
	}
	slices.SortFunc(rows, byName)
	list(s.stdout, "Commands", rows)
	fmt.Fprintf(s.stdout, "\nRun 'nook %s COMMAND --help' for more information on a command.\n", g.name)
	return nil
}

func (s *shell) helpVerb(v verb) error {
	w := s.stdout
	fmt.Fprintf(w, "Usage:  nook %s\n\n%s\n", strings.TrimSpace(v.name+" "+v.usage), v.about)
	if len(v.long) > 0 && v.long[0] != v.name {
		fmt.Fprintf(w, "\nAliases:\n  nook %s, nook %s\n", strings.Join(v.long, ", nook "), v.name)
	}
	printOptions(w, "Options", v.options())
	if len(v.examples) > 0 {
		fmt.Fprint(w, "\nExamples:\n")
		for _, example := range v.examples {
			fmt.Fprintf(w, "  %s\n", example)
		}
	}
	return nil
}

func byName(a, b [2]string) int { return strings.Compare(a[0], b[0]) }

// list prints a title and two columns; nothing when there are no rows.
func list(w io.Writer, title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for _, row := range rows {
		width = max(width, len(row[0]))
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, row := range rows {
		name := row[0]
		for _, line := range wrap(row[1], 80-width-5) {
			fmt.Fprintf(w, "  %-*s  %s\n", width+1, name, line)
			name = ""
		}
	}
}

// printOptions prints flags as docker does, wrapped to 80 columns.
func printOptions(w io.Writer, title string, options []option) {
	if len(options) == 0 {
		return
	}
	names := make([]string, len(options))
	width := 0
	for i, o := range options {
		short := "    "
		if o.short != "" {
			short = "-" + o.short + ", "
		}
		names[i] = strings.TrimRight(short+"--"+o.name+" "+o.value, " ")
		width = max(width, len(names[i]))
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for i, o := range options {
		for n, line := range wrap(o.usage, 80-width-5) {
			name := ""
			if n == 0 {
				name = names[i]
			}
			fmt.Fprintf(w, "  %-*s   %s\n", width, name, line)
		}
	}
}

// wrap breaks text at spaces into lines of at most width characters, as far as
// its words allow.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
