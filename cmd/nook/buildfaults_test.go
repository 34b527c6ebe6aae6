package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/build/dockerfile"
	"nook/engine"
	"nook/images"
	"nook/internal/hint"
)

// fakeBuilder builds nothing.
type fakeBuilder struct {
	backend
	asked int
	image images.Image
	err   error
}

func (f *fakeBuilder) Build(context.Context, build.Options) (build.Result, error) {
	f.asked++
	return build.Result{Image: f.image}, f.err
}

func typedBuild(t *testing.T, f *fakeBuilder, args ...string) (stderr string, code int) {
	t.Helper()
	var errs strings.Builder
	s := &shell{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: &errs,
		lookup: func(string) (string, bool) { return "", false }, now: time.Now,
		open: func(context.Context, engine.Options) (backend, error) { return f, nil },
	}
	code = s.main(append([]string{"build"}, args...))
	return errs.String(), code
}

// Scripts that were written for docker go on, where nook does what they ask for.
func TestBuildTakesDockersFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--rm .":                                    "",
		"--rm=true --load .":                        "",
		"--force-rm -t x .":                         "",
		"--push=false .":                            "",
		"--load -o - .":                             "",
		"--load -o type=image .":                    "",
		"--rm=false .":                              "nook: --rm=false is refused: it is always so\n",
		"--force-rm=false .":                        "nook: --force-rm=false is refused: it is always so\n",
		"--load=false .":                            "nook: --load=false is refused: it is always so\n",
		"--provenance=false --sbom=false .":         "",
		"--provenance false --sbom disabled=true .": "",
		"--provenance=mode=max .":                   "nook: --provenance=mode=max is refused: nook makes no attestations\nhint: leave it out, or write --provenance=false\n",
		"--sbom=true .":                             "nook: --sbom=true is refused: nook makes no attestations\nhint: leave it out, or write --sbom=false\n",
		"--push -t x .":                             "nook: --push is refused: a build sends nothing\nhint: nook push NAME sends it\n",
		"--versoin .":                               "nook: unknown flag: --versoin\nhint: see nook build --help\n",
		"--tagg x .":                                "nook: unknown flag: --tagg\nhint: did you mean --tag?\n",
		"--bulid-arg=A=1 .":                         "nook: unknown flag: --bulid-arg\nhint: did you mean --build-arg?\n",
		"-o type=local .":                           "nook: --output type=local has no dest=DIRECTORY\nhint: write it like -o type=local,dest=out, or -o out\n",
		"--cache-to type=registry .": "nook: invalid value \"type=registry\" for --cache-to: ref is missing\n" +
			"hint: write it like type=registry,ref=NAME\n",
		"--root x .":             "nook: unknown flag: --root\nhint: --root stands before the command: nook --root … build\n",
		"-o - -o type=oci .":     "nook: --output - and type=oci both go to standard output\nhint: give one of them a file: type=oci,dest=FILE\n",
		"-o x/y -o ./x/../x/y .": "nook: --output x/y and ./x/../x/y both go to ./x/../x/y\nhint: each needs a place of its own\n",
	} {
		f := &fakeBuilder{}
		stderr, code := typedBuild(t, f, strings.Fields(args)...)
		if stderr != want || (code == 0) != (want == "") || f.asked != 1-min(len(want), 1) {
			t.Errorf("%s: %d, asked %d times\n%s\nwant\n%s", args, code, f.asked, stderr, want)
		}
	}
	if _, stderr, _ := typed(t, &fake{}, nil, "--versoin"); stderr != "nook: unknown flag: --versoin\nhint: did you mean --version?\n" {
		t.Errorf("a global flag: %s", stderr)
	}
}

// A word of a Dockerfile may be megabytes; a message about it isn't.
func TestBuildFaultsAreShort(t *testing.T) {
	word := strings.Repeat("ü", 6<<20)
	exit := &build.ExitError{Args: []string{"/bin/sh", "-c", strings.Repeat("echo a; ", 1<<20)}, Code: 3}
	for name, tc := range map[string]struct {
		err  error
		want []string
		code int
	}{
		"a word": {&dockerfile.Error{File: "Dockerfile", Line: 3, Err: hint.Errorf("see "+word, "failed to process %q: syntax error: missing '}'", word)},
			[]string{"nook: Dockerfile:3: failed to process \"üüü", "ü…ü", "ü\": syntax error: missing '}'\nhint: see üüü"}, 125},
		"words": {&build.StepError{Step: "RUN " + word, Output: "said", Err: exit},
			[]string{" > RUN üüü", "said\n", "nook: process \"/bin/sh -c echo a; echo", "echo a; \" did not complete successfully: exit code: 3\n"}, 3},
		"no program": {&build.StepError{Step: `[2/2] RUN ["none"]`, Enter: "sha256:0123456789abcdef", Err: &dockerfile.Error{File: "Dockerfile", Line: 2, Err: &build.ExitError{
			Args: []string{"none"}, Code: 127, Err: hint.Errorf("is it there?", "exec \"none\": not found")}}},
			[]string{"------\n > [2/2] RUN [\"none\"]:\n------\n",
				"nook: Dockerfile:2: exec \"none\": not found\nhint: is it there?; nook run --rm -it 0123456789ab sh enters the state before this step\n"}, 127},
	} {
		t.Run(name, func(t *testing.T) {
			stderr, code := typedBuild(t, &fakeBuilder{err: tc.err}, ".")
			if code != tc.code || len(stderr) > 4000 || !utf8.ValidString(stderr) {
				t.Errorf("code %d, %d bytes: %.500s", code, len(stderr), stderr)
			}
			for _, want := range tc.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q is not in %.5000s", want, stderr)
				}
			}
		})
	}
	if got := abridged("a short text,  as it is\n"); got != "a short text,  as it is\n" {
		t.Errorf("%q", got)
	}
	missing := &os.PathError{Op: "open", Path: word, Err: os.ErrNotExist}
	if err := abridge(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("the cause is lost")
	}
}

// A fifo without a reader, or whose reader reads no more, ends with the work.
func TestFifoAsOutput(t *testing.T) {
	name := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shell{}
	end := func(do func(ctx context.Context, cancel func()) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- do(ctx, cancel) }()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it still waits")
		}
	}
	end(func(ctx context.Context, cancel func()) error {
		cancel()
		return s.toFile(ctx, name, func(io.Writer) error { return errors.New("it was opened") })
	})
	reader, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	end(func(ctx context.Context, cancel func()) error {
		return s.toFile(ctx, name, func(w io.Writer) error {
			cancel()
			_, err := w.Write(make([]byte, 1<<20)) // more than a fifo holds
			return err
		})
	})
}
