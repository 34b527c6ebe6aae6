package build

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mkfifo(t *testing.T, dir, name string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// What nobody writes to doesn't keep a build from ending.
func TestReadingEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "Dockerfile=FROM base")
	fifo := mkfifo(t, t.TempDir(), "fifo")
	stdin, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	defer stdin.Close()
	for name, o := range map[string]Options{
		"context of standard input":    {Source: Source{Context: "-", Stdin: stdin}},
		"Dockerfile of standard input": {Source: Source{Context: dir, File: "-", Stdin: stdin}},
		"Dockerfile of a fifo":         {Source: Source{Context: dir, File: fifo}},
		"secret of a fifo": {Source: Source{Context: "-", Stdin: strings.NewReader("FROM base\nRUN --mount=type=secret,id=s x")},
			Secrets: map[string]Secret{"s": {Path: fifo}}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o.Temp = t.TempDir()
			o.Event = func(e Event) {
				// The step that reads has begun, or the one before it.
				if e.Kind == Started && !strings.Contains(e.Text, "remote build context") || o.Source.Stdin == stdin {
					cancel()
				}
			}
			done := make(chan error, 1)
			go func() {
				_, err := Build(ctx, newFake(), o)
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it still waits")
			}
		})
	}
}

// A fifo that the caller names is read, as <(command) of a shell is one; in the
// context it is refused.
func TestFifos(t *testing.T) {
	feed := func(name, text string) {
		go func() {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err == nil {
				_, _ = io.WriteString(f, text)
				f.Close()
			}
		}()
	}
	t.Run("named", func(t *testing.T) {
		fifo, secret := mkfifo(t, t.TempDir(), "fifo"), mkfifo(t, t.TempDir(), "secret")
		feed(fifo, "FROM base\nRUN --mount=type=secret,id=s,env=S x\n")
		feed(secret, "token")
		f := newFake()
		_, err := Build(t.Context(), f, Options{
			Source: Source{Context: t.TempDir(), File: fifo}, Temp: t.TempDir(), Secrets: map[string]Secret{"s": {Path: secret}},
		})
		if err != nil || f.env(t) != "S=token" {
			t.Errorf("%v, %+v", err, f.specs)
		}
	})
	for name, tc := range map[string]struct{ fifo, file, want string }{
		"Dockerfile":         {"Dockerfile", "", "Dockerfile of the context: Dockerfile is not a regular file"},
		"dockerfile":         {"dockerfile", "", "dockerfile of the context: dockerfile is not a regular file"},
		".dockerignore":      {".dockerignore", "own", ".dockerignore is not a regular file"},
		"own .dockerignore":  {"own.dockerignore", "own", "own.dockerignore is not a regular file"},
		"no such Dockerfile": {"other", "", "no Dockerfile in the context "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mkfifo(t, dir, tc.fifo)
			o := Options{Source: Source{Context: dir}, Temp: t.TempDir()}
			if tc.file != "" {
				write(t, dir, tc.file+"=FROM base")
				o.Source.File = filepath.Join(dir, tc.file)
			}
			_, err := Build(t.Context(), newFake(), o)
			if err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), dir+"/"), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// A large archive ends between any two reads, also inside of a file.
func TestUntil(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless := readerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	})
	if _, err := io.Copy(io.Discard, until(ctx, endless)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The packages that read patterns would print to standard error.
func TestPatternsAreText(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".dockerignore=a\n# b\nc\xff\n", "a")
	_, err := Build(t.Context(), newFake(), Options{Source: Source{Context: dir, File: "-", Stdin: strings.NewReader("FROM base")}, Temp: t.TempDir()})
	if err == nil || err.Error() != ".dockerignore:3: not UTF-8 text" {
		t.Errorf(".dockerignore: %v", err)
	}
	_, err = newFake().try(t, "FROM base\nARG X\nCOPY --exclude=$X --exclude=b a /", map[string]string{"a": "A"}, func(o *Options) {
		o.Args = map[string]string{"X": "\xff"}
	})
	if err == nil || err.Error() != "Dockerfile:3: --exclude=$X: not UTF-8 text" {
		t.Errorf("--exclude: %v", err)
	}
}
