package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

// fake is an engine that remembers what it was asked.
type fake struct {
	unasked
	fakeShower
	fakeKeeper
	fakeStorekeeper
	options engine.Options
	run     engine.RunOptions
	streams engine.Streams
	load    engine.LoadOptions
	imp     engine.ImportOptions
	logs    engine.LogsOptions
	asked   []string
	images  []images.Image
	object  any
	code    int
	err     error
	during  func() // called by Run
}

// unasked panics where a test meets a method that fake has no own of.
type unasked struct{ backend }

func (f *fake) Load(_ context.Context, o engine.LoadOptions) ([]images.Image, error) {
	f.load = o
	return f.images, f.err
}

func (f *fake) Import(_ context.Context, o engine.ImportOptions) (images.Image, error) {
	f.imp = o
	return images.Image{ID: "sha256:made"}, f.err
}

func (f *fake) Images(context.Context) ([]images.Image, error) { return f.images, f.err }

func (f *fake) InspectImage(_ context.Context, name string) (any, error) {
	if strings.HasPrefix(name, "no") {
		return nil, hint.Errorf("see nook images", "%w: %s", images.ErrNotFound, name)
	}
	return f.object, nil
}

func (f *fake) RemoveContainers(_ context.Context, names []string, _ engine.RemoveOptions) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, name := range names {
			if !yield(name, f.removeContainer(name)) {
				return
			}
		}
	}
}

func (f *fake) removeContainer(name string) error {
	f.asked = append(f.asked, name)
	return f.err
}

func (f *fake) RemoveImage(_ context.Context, name string, force bool) ([]string, error) {
	f.asked = append(f.asked, name)
	if strings.HasPrefix(name, "no") {
		return nil, hint.Errorf("see nook images", "no such image: %s", name)
	}
	if force {
		name += " by force"
	}
	return []string{"Untagged: " + name}, nil
}

func (f *fake) Tag(_ context.Context, src, dst string) error {
	f.asked = append(f.asked, src, dst)
	return f.err
}

func (f *fake) Run(_ context.Context, o engine.RunOptions, s engine.Streams) (int, error) {
	f.run, f.streams = o, s
	if f.during != nil {
		f.during()
	}
	return f.code, f.err
}

func (f *fake) Info(context.Context) (*engine.Info, error) { return &engine.Info{}, f.err }

// typed runs one command line against f.
func typed(t *testing.T, f *fake, env map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	s := &shell{
		stdin:  strings.NewReader("standard input"),
		stdout: &out,
		stderr: &errs,
		lookup: func(key string) (string, bool) { v, ok := env[key]; return v, ok },
		now:    func() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) },
		open: func(_ context.Context, o engine.Options) (backend, error) {
			f.options = o
			return f, nil
		},
	}
	code = s.main(args)
	return out.String(), errs.String(), code
}

// ttyShell is a shell whose standard streams are a terminal.
func ttyShell(tty *os.File, f *fake, during func()) *shell {
	f.during = during
	return &shell{
		stdin:  tty,
		stdout: tty,
		stderr: io.Discard,
		lookup: func(string) (string, bool) { return "", false },
		now:    time.Now,
		open:   func(context.Context, engine.Options) (backend, error) { return f, nil },
	}
}

func TestCommandLineErrors(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"nosuch", "nook: unknown command: nook nosuch\nhint: see nook --help\n"},
		{"image nosuch", "nook: unknown command: nook image nosuch\nhint: see nook image --help\n"},
		{"--nosuch run x", "nook: unknown flag: --nosuch\nhint: see nook --help\n"},
		{"--rm run x", "nook: unknown flag: --rm\nhint: see nook --help\n"},
		{"--root", "nook: flag needs an argument: --root\nhint: see nook --help\n"},
		{"--root /x", "nook: no command was named\nhint: see nook --help\n"},
		{"run", "nook: 'nook run' requires at least 1 argument\nhint: see nook run --help\n"},
		{"run -z x", "nook: unknown shorthand flag: \"z\" in -z\nhint: see nook run --help\n"},
		{"run --root /x y", "nook: unknown flag: --root\nhint: --root stands before the command: nook --root … run\n"},
		{"image rm", "nook: 'nook image rm' requires at least 1 argument\nhint: see nook image rm --help\n"},
		{"tag a", "nook: 'nook tag' requires 2 arguments\nhint: see nook tag --help\n"},
		{"images a b", "nook: 'nook images' requires at most 1 argument\nhint: see nook images --help\n"},
		{"version a", "nook: 'nook version' accepts no arguments\nhint: see nook version --help\n"},
		{"--ids some images", "nook: invalid value \"some\" for --ids\nhint: auto, mapped and single are known\n"},
		{"run --network bridge x", "nook: network \"bridge\" not found\nhint: none and host are known\n"},
		{"run --name -x y", "nook: invalid container name \"-x\"\nhint: a name is two or more of a-z A-Z 0-9 _ . - and begins with a letter or digit\n"},
		{"run -it x", "nook: the input device is not a TTY\nhint: leave out -t when standard input is no terminal\n"},
		{"run --env-file /nosuch x", "nook: read env file /nosuch: no such file or directory\n"},
		{"run -l =x y", "nook: invalid label \"=x\": empty name\nhint: see nook run --help\n"},
		{"inspect --type network x", "nook: invalid value \"network\" for --type\nhint: container, image and volume are known\n"},
		{"images --format {{", "nook: template \"{{\": 1: unclosed action\nhint: a template is Go's: {{.ID}}, {{json .}}\n"},
	} {
		t.Run(test.args, func(t *testing.T) {
			stdout, stderr, code := typed(t, &fake{}, nil, strings.Fields(test.args)...)
			if stderr != test.want || code != 125 || stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr\n%s\nwant 125 and\n%s", code, stdout, stderr, test.want)
			}
		})
	}
}

func TestGroupedFormsAreTheSameCommands(t *testing.T) {
	for short, long := range map[string][]string{
		"images":    {"image ls", "image list"},
		"rmi x":     {"image rm x", "image remove x"},
		"inspect x": {"image inspect x"},
		"tag a b":   {"image tag a b"},
		"load":      {"image load"},
		"import f":  {"image import f"},
		"run x -y":  {"container run x -y"},
	} {
		want, _, wantCode := typed(t, &fake{object: 1}, nil, strings.Fields(short)...)
		for _, line := range long {
			got, stderr, code := typed(t, &fake{object: 1}, nil, strings.Fields(line)...)
			if got != want || code != wantCode || code != 0 {
				t.Errorf("%s: %q, exit %d, %s; want what %s says: %q", line, got, code, stderr, short, want)
			}
		}
	}
}

func TestGlobalFlags(t *testing.T) {
	for _, test := range []struct {
		args      string
		env       map[string]string
		root, ids string
	}{
		{"images", nil, "", ""},
		{"--root /r --ids=single images", nil, "/r", "single"},
		{"--ids mapped images", map[string]string{"NOOK_IDS": "single"}, "", "mapped"},
		{"images", map[string]string{"NOOK_IDS": "single"}, "", "single"},
	} {
		f := &fake{}
		_, stderr, code := typed(t, f, test.env, strings.Fields(test.args)...)
		if code != 0 || f.options.Root != test.root || f.options.IDs != test.ids {
			t.Errorf("%s: exit %d %s, root %q ids %q; want %q %q", test.args, code, stderr, f.options.Root, f.options.IDs, test.root, test.ids)
		}
	}
}

func TestErrorsAreOneLineAndCarryTheirCode(t *testing.T) {
	err := hint.WithCode(hint.Errorf("do\nthis", "run entrypoint \x1b[31mred\xff: %w", errors.New("two\nlines")), 127)
	_, stderr, code := typed(t, &fake{err: err}, nil, "run", "x")
	want := "nook: run entrypoint \\x1b[31mred\\xff: two; lines\nhint: do; this\n"
	if stderr != want || code != 127 {
		t.Errorf("exit %d, %q; want 127, %q", code, stderr, want)
	}
}

func TestSeveralNamesAreAllDone(t *testing.T) {
	f := &fake{}
	stdout, stderr, code := typed(t, f, nil, "rmi", "a", "no1", "-f", "b")
	if want := "Untagged: a by force\nUntagged: b by force\n"; stdout != want {
		t.Errorf("stdout %q, want %q", stdout, want)
	}
	if want := "nook: no such image: no1\nhint: see nook images\n"; stderr != want || code != 125 {
		t.Errorf("exit %d, stderr %q, want 125, %q", code, stderr, want)
	}
}

func TestHelpIsGolden(t *testing.T) {
	for file, args := range map[string]string{
		"help":           "--help",
		"help-run":       "run --help",
		"help-image":     "image --help",
		"help-container": "container",
		"help-ps":        "container ls --help",
		"help-load":      "load --help",
		"help-images":    "images --help",
		"help-rmi":       "image rm --help",
		"help-inspect":   "help inspect",
		"help-logs":      "logs --help",
	} {
		t.Run(args, func(t *testing.T) {
			stdout, stderr, code := typed(t, &fake{}, nil, strings.Fields(args)...)
			if code != 0 || stderr != "" {
				t.Errorf("exit %d, stderr %q", code, stderr)
			}
			golden(t, file+".txt", stdout)
			rows := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			lists := file == "help" || file == "help-run" || file == "help-container" // of everything there is
			if len(rows) > 32 && !lists {
				t.Errorf("%d lines, more than a screen", len(rows))
			}
			for _, row := range rows {
				if len(row) > 80 {
					t.Errorf("line of %d columns: %s", len(row), row)
				}
			}
		})
	}
}

func TestEveryVerbHelps(t *testing.T) {
	for _, v := range verbs() {
		stdout, _, code := typed(t, &fake{}, nil, append(strings.Fields(v.name), "--help")...)
		if code != 0 || !strings.HasPrefix(stdout, "Usage:  nook "+v.name) || strings.Contains(stdout, "\x1b") {
			t.Errorf("%s --help: exit %d, %q", v.name, code, stdout)
		}
	}
}
