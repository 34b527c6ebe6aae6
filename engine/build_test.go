package engine

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nook/build"
)

// context makes a build context of files, by their names.
func contextOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// built is a build, and which of its steps came from the cache.
type built struct {
	build.Result
	out    string
	cached []string
}

func buildDockerfile(t *testing.T, e *Engine, dir string, change ...func(*build.Options)) (built, error) {
	t.Helper()
	var mu sync.Mutex
	var out bytes.Buffer
	var b built
	names := map[int]string{}
	o := build.Options{Source: build.Source{Context: dir}, Names: []string{"made"}, Event: func(ev build.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch ev.Kind {
		case build.Started:
			names[ev.Step] = ev.Text
		case build.Cached:
			b.cached = append(b.cached, names[ev.Step])
		case build.Wrote:
			out.WriteString(ev.Text)
		}
	}}
	for _, c := range change {
		c(&o)
	}
	var err error
	b.Result, err = e.Build(t.Context(), o)
	b.out = out.String()
	return b, err
}

func mustBuild(t *testing.T, e *Engine, dir string, change ...func(*build.Options)) built {
	t.Helper()
	b, err := buildDockerfile(t, e, dir, change...)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.out)
	}
	return b
}

func TestBuildMakesAnImageThatRuns(t *testing.T) {
	for _, ids := range []string{"mapped", "single"} {
		t.Run(ids, func(t *testing.T) {
			e := loaded(t, ids, nil)
			dir := contextOf(t, map[string]string{
				"Dockerfile": `FROM busybox
WORKDIR /work
COPY a sub/ ./
RUN echo ran >r && cat a r && rm /bin/wc && mkdir -p /x/y && touch /x/y/z
ENV GREETING=hello
CMD ["sh", "-c", "echo $GREETING; pwd; cat a b r; ls -d /bin/wc /x/y/z 2>&1"]
`, "a": "a's\n", "sub/b": "b's\n",
			})
			b := mustBuild(t, e, dir)
			if !strings.Contains(b.out, "a's\nran\n") {
				t.Errorf("RUN printed %q", b.out)
			}
			got, err := run(t, e, RunOptions{Image: "made", Remove: true})
			if err != nil {
				t.Fatal(err)
			}
			if want := "hello\n/work\na's\nb's\nran\n"; !strings.HasPrefix(got.out, want) || !strings.Contains(got.out, "/x/y/z") || !strings.Contains(got.out, "No such file") {
				t.Errorf("the image printed %q, %q", got.out, got.err)
			}
			again := mustBuild(t, e, dir)
			if again.Image.ID != b.Image.ID || len(again.cached) < 3 {
				t.Errorf("built again: %s from %q, first %s", again.Image.ID, again.cached, b.Image.ID)
			}
			nothingLeft(t, e)
		})
	}
}
