package early

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRuns(t *testing.T) {
	t.Setenv("NOOK_IDS", "")
	for line, want := range map[string]bool{
		"nook run busybox":                           true,
		"/usr/bin/nook run -d --rm busybox true":     true,
		"nook --root /run run busybox":               true,
		"nook --root /tmp --ids mapped run x":        true,
		"nook --root=/tmp container run x":           true,
		"nook --ids single run x":                    false,
		"nook --ids=single run x":                    false,
		"nook exec web run":                          false,
		"nook --root run ps":                         false,
		"nook":                                       false,
		"nook-monitor run":                           false,
		"nook-stage run":                             false,
		"nook container ls":                          false,
		"nook -h run":                                true, // it is of no use, and ends
		"nook --ids":                                 false,
		"nook " + strings.Repeat("x", 5000) + " run": false,
	} {
		if got := runs([]byte(strings.ReplaceAll(line, " ", "\x00") + "\x00")); got != want {
			t.Errorf("%.60q: got %v, want %v", line, got, want)
		}
	}
	t.Setenv("NOOK_IDS", "single")
	if runs([]byte("nook\x00run\x00x\x00")) {
		t.Error("NOOK_IDS=single is not seen")
	}
}

func TestLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subuid")
	const text = "root:1:2\nuser:100000:65536\nother:5:5\nuser:x:1\nuser:1:\n1000:300000:10\n\nuser:7\nuser:200000:0\nuser:400000:5"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"1", "100000", "65536", "65537", "300000", "10"}
	if got := linesOf(path, "user", "1000"); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := linesOf(path, "", "2000"); got != nil {
		t.Errorf("got %q of nobody", got)
	}
	if got := linesOf(path+"x", "user", "1000"); got != nil {
		t.Errorf("got %q of no file", got)
	}
}

func TestNumber(t *testing.T) {
	for _, n := range []int{0, 9, 10, 65536, 4294967295} {
		if got, ok := parse(number(n)); got != n || ok != (n > 0) {
			t.Errorf("%d: got %d, %v from %q", n, got, ok, number(n))
		}
	}
	for _, s := range []string{"", "-1", "1x", "99999999999999999999"} {
		if n, ok := parse(s); ok {
			t.Errorf("%q: got %d", s, n)
		}
	}
}
