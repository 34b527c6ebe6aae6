package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	rows := []imageRow{{ID: "abc", Repository: "web", Tag: "1"}, {ID: "def", Repository: "<none>", Tag: "x y"}}
	for _, test := range []struct{ format, want string }{
		{"{{.ID}}", "abc\ndef\n"},
		{`{{.ID}}\t{{.Tag}}`, "abc\t1\ndef\tx y\n"},
		{"table {{.Repository}}\t{{upper .ID}}", "REPOSITORY   IMAGE ID\nweb          ABC\n<none>       DEF\n"},
		{"{{json .Tag}}", "\"1\"\n\"x y\"\n"},
		{"{{title .Tag}} {{join (split .Tag \" \") \"+\"}}", "1 1\nX Y x+y\n"},
		{"{{pad .ID 1 2}}|{{truncate .ID 2}}|{{println .ID}}", " abc  |ab|abc\n\n def  |de|def\n\n"},
	} {
		var out bytes.Buffer
		err := writeRows(&out, readFormat(test.format, "{{.ID}}\t{{.Tag}}"), imageHeaders(), rows)
		if err != nil || out.String() != test.want {
			t.Errorf("%s: %v, got\n%q\nwant\n%q", test.format, err, out.String(), test.want)
		}
	}
	for _, plain := range []string{"", "table", "table "} {
		var out bytes.Buffer
		err := writeRows(&out, readFormat(plain, "{{.ID}}\t{{.Tag}}"), imageHeaders(), rows)
		if want := "IMAGE ID   TAG\nabc        1\ndef        x y\n"; err != nil || out.String() != want {
			t.Errorf("%q: %v, got\n%q\nwant\n%q", plain, err, out.String(), want)
		}
	}
	var out bytes.Buffer
	if err := writeRows(&out, readFormat("json", ""), nil, rows[:1]); err != nil ||
		!strings.HasPrefix(out.String(), `{"Containers":"","CreatedAt":"`) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("json: %v, %q", err, out.String())
	}
}

func TestFormatErrorsPrintNothing(t *testing.T) {
	for format, want := range map[string]string{
		"{{.ID":              `template "{{.ID": 1: unclosed action`,
		"{{.Nosuch}}":        "can't evaluate field Nosuch",
		"table {{.Nosuch}}":  `map has no entry for key "Nosuch"`,
		"{{nosuch .ID}}":     `function "nosuch" not defined`,
		"{{join .ID \",\"}}": "join wants a list, not string",
	} {
		var out bytes.Buffer
		err := writeRows(&out, readFormat(format, ""), imageHeaders(), []imageRow{{ID: "a"}})
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%s: got %v and %q, want %q and nothing", format, err, out.String(), want)
		}
	}
}
