package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nook/engine"
)

func TestRunFlagsBecomeOptions(t *testing.T) {
	f := &fake{}
	_, stderr, code := typed(t, f, map[string]string{"MINE": "my own"}, "run", "-i", "--rm", "--init", "--read-only",
		"--name", "web-1", "-eA=1,2", "--env", " B= \xff ", "-e", "MINE", "-e", "UNSET", "-w/w", "-u0:0", "--entrypoint", "/bin/x y",
		"-h", "box", "--tmpfs", "/t:size=1m,mode=1777", "-v", "/a:/b:ro", "-v/c:/d", "--net", "host", "-l", "k=v", "-l", "alone",
		"--cidfile", "/nosuch/file", "img:1", "sh", "-c", "echo --rm")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	entrypoint := "/bin/x y"
	want := engine.RunOptions{
		Image: "img:1", Command: []string{"sh", "-c", "echo --rm"},
		Name: "web-1", Env: []string{"A=1,2", " B= \xff ", "MINE=my own", "UNSET"}, WorkDir: "/w", User: "0:0", Entrypoint: &entrypoint,
		Hostname: "box", ReadOnly: true, Tmpfs: []string{"/t:size=1m,mode=1777"}, Volumes: []string{"/a:/b:ro", "/c:/d"},
		Network: "host", Labels: map[string]string{"k": "v", "alone": ""}, CIDFile: "/nosuch/file",
		Init: true, Remove: true, Interactive: true,
	}
	f.run.PullOptions = engine.PullOptions{} // who is told of a pull
	if !reflect.DeepEqual(f.run, want) {
		t.Errorf("got\n%+v\nwant\n%+v", f.run, want)
	}
	if got, _ := io.ReadAll(f.streams.In); string(got) != "standard input" || f.streams.Terminal != nil {
		t.Errorf("standard input %q, terminal %v", got, f.streams.Terminal)
	}
}

func TestRunDefaults(t *testing.T) {
	f := &fake{code: 42}
	stdout, stderr, code := typed(t, f, nil, "run", "img")
	if code != 42 || stdout+stderr != "" {
		t.Errorf("exit %d, %q %q; want the container's 42 and no word", code, stdout, stderr)
	}
	if f.run.Entrypoint != nil || f.streams.In != nil || len(f.run.Command) != 0 {
		t.Errorf("got %+v, %+v; want no entrypoint, no standard input, no command", f.run, f.streams)
	}
	typed(t, f, nil, "run", "--entrypoint", "", "img")
	if f.run.Entrypoint == nil || *f.run.Entrypoint != "" {
		t.Errorf("--entrypoint '' became %v, want the empty string", f.run.Entrypoint)
	}
}

func TestRunRefusesACidfileThatIsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cid")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	if _, stderr, code := typed(t, f, nil, "run", "--cidfile", file, "img"); code != 125 || !strings.Contains(stderr, "already there") || f.run.Image != "" {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	write(t, one, "\uFEFFA=1 \n\n  # not this\n  C=x=y\r\nQ=\"q\"\nHOME\nUNSET\nEMPTY=\n")
	write(t, two, "A=2")
	env := map[string]string{"HOME": "/me"}
	s := &shell{lookup: func(key string) (string, bool) { v, ok := env[key]; return v, ok }}
	got, err := s.environment([]string{one, two}, []string{"A=3", "HOME", "UNSET"})
	want := []string{"A=1 ", "C=x=y", `Q="q"`, "HOME=/me", "EMPTY=", "A=2", "A=3", "HOME=/me", "UNSET"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := s.environment(nil, []string{"=x"}); err == nil {
		t.Error("-e =x was taken")
	}
}

func TestParsePairsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"=x":          "line 1: no name before the =",
		"A=1\nB =2":   `line 2: variable "B " contains whitespace`,
		"A B":         `line 1: variable "A B" contains whitespace`,
		"A\xff=1":     "line 1: not UTF-8",
		"\n\nA=1\x00": "line 3: contains a NUL byte",
	} {
		if got, err := parsePairs([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v; want error %q", text, got, err, want)
		}
	}
}

func TestLabels(t *testing.T) {
	file := filepath.Join(t.TempDir(), "labels")
	write(t, file, "alone\nl2=3\nl3=\n")
	got, err := readLabels([]string{file}, []string{"l2=9", "zz", "u=a=b"})
	want := map[string]string{"l2": "9", "l3": "", "zz": "", "u": "a=b"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"ab": true, "web_1.x-y": true, "0a": true, "A.": true,
		"a": false, "-a": false, ".a": false, "_a": false, "a b": false, "a/b": false, "aé": false, "a\nb": false,
	} {
		if err := checkName(name); (err == nil) != want {
			t.Errorf("%q: %v, want accepted: %v", name, err, want)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
