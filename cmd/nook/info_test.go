package main

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"nook/engine"
)

func TestSections(t *testing.T) {
	var out bytes.Buffer
	writeSections(&out, []engine.Section{
		{Title: "Ids", Rows: [][2]string{{"Mode", "single"}, {"Why", "no line in /etc/subuid\nfor this user"}}},
		{Title: "Storage", Rows: [][2]string{{"Root filesystem", "overlay"}, {"Empty", ""}}},
	})
	want := `Ids
  Mode:            single
  Why:             no line in /etc/subuid
                   for this user

Storage
  Root filesystem: overlay
  Empty:
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestVersion(t *testing.T) {
	stdout, _, code := typed(t, &fake{}, nil, "version", "-f", "{{.GoVersion}} {{.OS}}/{{.Arch}}")
	if want := runtime.Version() + " linux/" + runtime.GOARCH + "\n"; stdout != want || code != 0 {
		t.Errorf("got %q, want %q", stdout, want)
	}
	stdout, _, _ = typed(t, &fake{}, nil, "version", "--format", "json")
	var b buildInfo
	if err := json.Unmarshal([]byte(stdout), &b); err != nil || b.GoVersion != runtime.Version() {
		t.Errorf("%q: %v, %+v", stdout, err, b)
	}
	stdout, _, _ = typed(t, &fake{}, nil, "version")
	if !strings.HasPrefix(stdout, "Version:     ") || strings.Count(stdout, "\n") != 5 {
		t.Errorf("got\n%s", stdout)
	}
	for _, args := range [][]string{{"--version"}, {"-v"}, {"-v", "run"}} {
		if stdout, _, code := typed(t, &fake{}, nil, args...); !strings.HasPrefix(stdout, "nook version ") || code != 0 {
			t.Errorf("%v: exit %d, %q", args, code, stdout)
		}
	}
}
