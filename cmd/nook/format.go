package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode"
	"unicode/utf8"

	"nook/internal/hint"
)

const formatUsage = "Format output: 'json', 'table TEMPLATE' or a Go TEMPLATE"

// format is a --format in docker's meaning:
//
//	"" or table       the verb's own table
//	table TEMPLATE    these columns, under their headers
//	json              a line of JSON for each row
//	TEMPLATE          what the template makes of each row
type format struct {
	template string // of a row; "": JSON
	table    bool
}

// readFormat reads a --format; fallback is the template of the verb's table.
func readFormat(flag, fallback string) format {
	// docker's users type \t and \n inside of single quotes.
	unescape := strings.NewReplacer(`\t`, "\t", `\n`, "\n")
	rest, table := strings.CutPrefix(flag, "table")
	switch {
	case flag == "json":
		return format{}
	case flag == "" || table && strings.TrimSpace(rest) == "":
		return format{template: fallback, table: true}
	case table && rest[0] == ' ':
		return format{template: strings.TrimSpace(unescape.Replace(rest)), table: true}
	}
	return format{template: unescape.Replace(flag)}
}

// writeRows prints rows. headers names the column of each field, for tables: a
// map with the methods that rows have.
func writeRows[T any](w io.Writer, f format, headers any, rows []T) error {
	if f.template == "" {
		for _, row := range rows {
			if err := writeJSON(w, row, ""); err != nil {
				return err
			}
		}
		return nil
	}
	// Nothing is printed of rows before one that a template can't be filled with.
	var buf bytes.Buffer
	out := io.Writer(&buf)
	if f.table {
		columns := tabwriter.NewWriter(&buf, 10, 1, 3, ' ', 0)
		defer columns.Flush()
		out = columns
		head, err := parseTemplate(f.template, headerFunctions())
		if err != nil {
			return err
		}
		if err := execute(out, head, headers); err != nil {
			return err
		}
	}
	body, err := parseTemplate(f.template, templateFunctions())
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := execute(out, body, row); err != nil {
			return err
		}
	}
	if columns, ok := out.(*tabwriter.Writer); ok {
		if err := columns.Flush(); err != nil {
			return err
		}
	}
	_, err = w.Write(buf.Bytes())
	return err
}

func parseTemplate(text string, functions template.FuncMap) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, hint.Errorf("a template is Go's: {{.ID}}, {{json .}}", "template %q: %s", text, templateFact(err))
	}
	return t, nil
}

func execute(w io.Writer, t *template.Template, data any) error {
	if err := t.Execute(w, data); err != nil {
		return hint.Errorf("--format json shows the fields", "template: %s", templateFact(err))
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// templateFact takes away the name that our templates don't have.
func templateFact(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "template: :"), "template: ")
}

func writeJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// templateFunctions are those of docker's templates package; println and the
// rest are text/template's own.
func templateFunctions() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			err := writeJSON(&b, v, "")
			return strings.TrimSpace(b.String()), err
		},
		"join":     join,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"title":    title,
		"split":    strings.Split,
		"pad":      pad,
		"truncate": truncate,
	}
}

// headerFunctions leave a column's header as it is.
func headerFunctions() template.FuncMap {
	same := func(v string) string { return v }
	return template.FuncMap{
		"json":     same,
		"join":     func(v string, _ string) string { return v },
		"lower":    same,
		"upper":    same,
		"title":    same,
		"split":    func(v string, _ string) string { return v },
		"pad":      pad,
		"truncate": func(v string, _ int) string { return v },
	}
}

// join takes any list, as lists from decoded JSON are []any.
func join(list any, separator string) (string, error) {
	v := reflect.ValueOf(list)
	if !v.IsValid() || v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return "", fmt.Errorf("join wants a list, not %T", list)
	}
	parts := make([]string, v.Len())
	for i := range parts {
		parts[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(parts, separator), nil
}

func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		begins := !unicode.IsLetter(before) && !unicode.IsDigit(before) && before != '_' && before != '\''
		before = r
		if begins {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
}

func truncate(s string, length int) string {
	if length < 0 || utf8.RuneCountInString(s) <= length {
		return s
	}
	return string([]rune(s)[:length])
}
