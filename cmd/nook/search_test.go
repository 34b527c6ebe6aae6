package main

import (
	"context"
	"strings"
	"testing"
)

// catalog is a backend whose registry has some repositories.
type catalog struct {
	fake
	term string
}

func (c *catalog) Search(_ context.Context, term string) ([]string, error) {
	c.term = term
	return []string{"busybox", "team/busybox", "localhost:5000/busybox"}, c.err
}

func TestSearchHasDockersColumns(t *testing.T) {
	const table = `NAME                     DESCRIPTION   STARS     OFFICIAL
busybox                                0         [OK]
team/busybox                           0         
localhost:5000/busybox                 0         
`
	for args, want := range map[string]string{
		"busybox": table,
		"-f is-official=true --format {{.Name}} busybox":             "busybox\n",
		"-f is-official=0 --limit 1 --format {{.Name}} busybox":      "team/busybox\n",
		"-f is-automated=true --format {{.Name}} busybox":            "",
		"-f stars=0 -f is-official=true --format {{.Name}} busybox":  "busybox\n",
		"--filter stars=3 --format json busybox":                     "",
		"--limit 1 --no-trunc --format {{.Name}}:{{.StarCount}} bus": "busybox:0\n",
	} {
		c := &catalog{}
		stdout, stderr, code := typedAt(t, c, append([]string{"search"}, strings.Fields(args)...)...)
		if code != 0 || stdout != want || stderr != "" {
			t.Errorf("%s: exit %d, stdout %q, want %q, stderr %q", args, code, stdout, want, stderr)
		}
		if !strings.HasPrefix(c.term, "bus") {
			t.Errorf("%s: asked for %q", args, c.term)
		}
	}
	for _, args := range []string{"-f stars=x b", "-f is-official=perhaps b", "--limit x b", "-f stars b", ""} {
		stdout, stderr, code := typedAt(t, &catalog{}, append([]string{"search"}, strings.Fields(args)...)...)
		if code != 125 || stdout != "" || !strings.Contains(stderr, "\nhint: ") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}
