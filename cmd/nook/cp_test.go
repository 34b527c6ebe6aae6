package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nook/engine"
)

func (f *fake) CopyTo(_ context.Context, name, dst string, in io.Reader, o engine.CopyToOptions) error {
	text, err := io.ReadAll(in)
	f.record("CopyTo", name, dst, string(text), o)
	return firstOf(err, f.err)
}

func (f *fake) CopyInto(_ context.Context, o engine.CopyOptions) (int64, error) {
	f.record("CopyInto", o)
	return 0, f.err
}

func (f *fake) CopyOutOf(_ context.Context, o engine.CopyOptions) (int64, error) {
	f.record("CopyOutOf", o)
	return 0, f.err
}

func (f *fake) CopyOutTo(_ context.Context, o engine.CopyOptions, w io.Writer) error {
	f.record("CopyOutTo", o)
	_, err := io.WriteString(w, "a tar stream")
	return firstOf(f.err, err)
}

func (f *fake) Diff(_ context.Context, name string) ([]engine.Change, error) {
	f.record("Diff", name)
	return []engine.Change{{Kind: 0, Path: "/etc"}, {Kind: 1, Path: "/etc/a\nb"}, {Kind: 2, Path: "/gone"}}, f.err
}

func (f *fake) Commit(_ context.Context, name string, o engine.CommitOptions) (string, error) {
	f.record("Commit", name, o)
	return "sha256:1", f.err
}

func (f *fake) Export(_ context.Context, name string, w io.Writer) error {
	f.record("Export", name)
	_, err := io.WriteString(w, "all files")
	return firstOf(err, f.err)
}

// record keeps a call with all its arguments.
func (f *fake) record(args ...any) { f.asked = append(f.asked, fmt.Sprintf("%+v", args)) }

func TestCpSides(t *testing.T) {
	for arg, want := range map[string][2]string{
		"web:/etc":   {"web", "/etc"},
		"web:":       {"web", ""},
		"web:a:b":    {"web", "a:b"},
		"/a:b":       {"", "/a:b"},
		"./a:b":      {"", "./a:b"},
		"../a:b":     {"", "../a:b"},
		"file":       {"", "file"},
		"-":          {"", "-"},
		"web:./here": {"web", "./here"},
	} {
		if container, path := cpSide(arg); container != want[0] || path != want[1] {
			t.Errorf("%s: got %q, %q, want %q", arg, container, path, want)
		}
	}
}

func TestCpAsksTheEngine(t *testing.T) {
	for line, want := range map[string]string{
		"cp a b:/c":       "[CopyInto {Container:b Path:/c Local:a Follow:false Archive:false}]",
		"cp -aL a b:/c":   "[CopyInto {Container:b Path:/c Local:a Follow:true Archive:true}]",
		"cp b:/c a -q":    "[CopyOutOf {Container:b Path:/c Local:a Follow:false Archive:false}]",
		"cp b:/c - -L":    "[CopyOutTo {Container:b Path:/c Local:- Follow:true Archive:false}]",
		"cp -a - b:/c":    "[CopyTo b /c standard input {Owners:true}]",
		"diff web":        "[Diff web]",
		"export web":      "[Export web]",
		"commit web":      "[Commit web {Ref: Author: Message: Changes:[] NoPause:false}]",
		"commit -p web x": "[Commit web {Ref:x Author: Message: Changes:[] NoPause:false}]",
		"commit -a me -m why -c USER=x -c CMD=a,b --pause=false web x:1": "[Commit web {Ref:x:1 Author:me Message:why Changes:[USER=x CMD=a,b] NoPause:true}]",
		"container commit --no-pause web":                                "[Commit web {Ref: Author: Message: Changes:[] NoPause:true}]",
	} {
		f := &fake{}
		_, stderr, code := typed(t, f, nil, strings.Fields(line)...)
		if code != 0 || stderr != "" || !slices.Equal(f.asked, []string{want}) {
			t.Errorf("%s: got %v, exit code %d, %q; want %s", line, f.asked, code, stderr, want)
		}
	}
}

func TestCpRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"cp a:/b c:/d": "copying between containers is not supported",
		"cp a b":       "must specify at least one container source",
		"cp - -":       "must specify at least one container source",
		"cp a: b":      "a path is missing",
		"cp a":         "'nook cp' requires 2 arguments",
	} {
		f := &fake{}
		_, stderr, code := typed(t, f, nil, strings.Fields(line)...)
		if code != 125 || !strings.Contains(stderr, want) || len(f.asked) > 0 {
			t.Errorf("%s: got exit code %d, %q and calls %v; want %q", line, code, stderr, f.asked, want)
		}
	}
}

func TestDiffPrintsALineAChange(t *testing.T) {
	stdout, _, _ := typed(t, &fake{}, nil, "diff", "web")
	if want := "C /etc\nA /etc/a; b\nD /gone\n"; stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
}

// TestExportToAFile: the file is there whole or as it was before.
func TestExportToAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out.tar")
	if err := os.WriteFile(name, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		err  error
		want string
	}{{errors.New("no"), "before"}, {nil, "all files"}} {
		typed(t, &fake{err: tc.err}, nil, "export", "-o", name, "web")
		if got, err := os.ReadFile(name); string(got) != tc.want {
			t.Errorf("after %v: got %q, %v", tc.err, got, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(name)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
