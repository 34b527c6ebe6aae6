package nooktest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nook/engine"
	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

func TestMain(m *testing.M) {
	if code, handled := engine.Main(os.Args); handled {
		os.Exit(code)
	}
	if testenv.Drops() {
		testenv.RunAsTestUser(m) // which comes here again
	}
	Main(m)
}

// archive is one with the image busybox.
func archive(t *testing.T) string {
	t.Helper()
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "overlay", testenv.Overlay)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	if err := img.WriteDocker(&data); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "busybox.tar")
	if err := os.WriteFile(path, data.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// script is a container that runs a shell script.
func script(archive, text string) Options {
	return Options{Archive: archive, RunOptions: engine.RunOptions{Command: []string{"sh", "-c", text}}}
}

const server = "echo hello >/tmp/index.html; echo up; exec httpd -f -vv -p 80 -h /tmp"

func TestServer(t *testing.T) {
	c := Start(t, script(archive(t), server))
	c.WaitForPort("tcp", "localhost:80")
	resp, err := c.Client().Get("http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello\n" {
		t.Errorf("got %q, %v", body, err)
	}
	if got := c.WaitForLog(`response:\d+`); !strings.HasSuffix(got, "response:200") {
		t.Errorf("in the log: %q", got)
	}
	if got := c.Exec("sh", "-c", "cat /tmp/index.html; echo to err >&2; exit 3"); got != (Result{3, "hello\n", "to err\n"}) {
		t.Errorf("exec: %+v", got)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.CopyInto(filepath.Join(dir, "page"), "/tmp/page")
	c.CopyOutOf("/tmp/page", filepath.Join(dir, "back"))
	if got, err := os.ReadFile(filepath.Join(dir, "back")); err != nil || string(got) != "second\n" {
		t.Errorf("copied there and back: %q, %v", got, err)
	}
	if !strings.Contains(c.Logs(), "up\n") {
		t.Errorf("logs: %q", c.Logs())
	}
}

// TestParallel: several servers at the same port, from an archive that is
// loaded once.
func TestParallel(t *testing.T) {
	path := archive(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			c := Start(t, script(path, fmt.Sprintf("echo %d >/tmp/index.html; exec httpd -f -p 80 -h /tmp", i)))
			c.WaitForPort("tcp", "localhost:80")
			resp, err := c.Client().Get("http://localhost/")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != fmt.Sprintf("%d\n", i) {
				t.Errorf("server %d: %q, %v", i, body, err)
			}
		})
	}
	wg.Wait()
}

func TestArchiveIsLoadedOnce(t *testing.T) {
	path := archive(t)
	ctx := t.Context()
	e, err := engine.Open(ctx, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyOf(path)
	if err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(os.Getenv(rootVariable), "nooktest", key)
	stat := func() os.FileInfo {
		t.Helper()
		if _, err := load(ctx, e, path); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(marker)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	first := stat()
	if second := stat(); !os.SameFile(first, second) {
		t.Error("it was loaded again")
	}
	images, err := e.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		if _, err := e.RemoveImage(ctx, img.ID, true); err != nil {
			t.Fatal(err)
		}
	}
	if third := stat(); os.SameFile(first, third) {
		t.Error("it was not loaded again after its image was removed")
	}
}

func TestStop(t *testing.T) {
	c := Start(t, script(archive(t), "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done"))
	c.WaitForLog("^up$")
	if code := c.Stop(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	if got := c.WaitForLog("^bye$"); got != "bye" { // it is gone by now
		t.Errorf("got %q", got)
	}
	if code := c.Stop(); code != 5 {
		t.Errorf("again: exit code %d, want 5", code)
	}
	list, err := c.Engine().List(t.Context(), engine.ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, ct := range list {
		if ct.ID == c.ID() {
			t.Errorf("it is still there: %+v", ct)
		}
	}
}

// fatal is a test that ended.
type fatal string

// recorder is a test whose end is seen.
type recorder struct {
	testing.TB
	cleanup []func()
	logged  string
}

func (r *recorder) Helper()          {}
func (r *recorder) Failed() bool     { return true }
func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }
func (r *recorder) Fatal(args ...any) {
	panic(fatal(fmt.Sprint(args...)))
}
func (r *recorder) Fatalf(format string, args ...any) {
	panic(fatal(fmt.Sprintf(format, args...)))
}
func (r *recorder) Logf(format string, args ...any) { r.logged += fmt.Sprintf(format, args...) }

// try runs a test to its end and tells what ended it and what it logged.
func try(t *testing.T, test func(testing.TB)) (why, logged string) {
	t.Helper()
	r := &recorder{TB: t}
	func() {
		defer func() {
			if end, ok := recover().(fatal); ok {
				why = string(end)
			}
		}()
		test(r)
	}()
	for _, f := range r.cleanup {
		f()
	}
	return why, r.logged
}

func TestFailuresTellWhy(t *testing.T) {
	path := archive(t)
	for name, tc := range map[string]struct {
		test         func(testing.TB)
		want, logged string
	}{
		"ends at once": {func(t testing.TB) {
			Start(t, script(path, "echo no configuration; exit 3")).WaitForPort("tcp", "localhost:80")
		}, "it ended with exit code 3", "it had ended with exit code 3; its output ends:\n\tno configuration"},
		"never in the log": {func(t testing.TB) {
			Start(t, script(path, "read x; echo one; exit 4")).WaitForLog("two")
		}, "two", "\n\tone"},
		"runs": {func(t testing.TB) {
			Start(t, script(path, "echo one; sleep 1000")).WaitForLog("one")
		}, "", "it was running; its output ends:\n\tone"},
		"no such program": {func(t testing.TB) {
			Start(t, Options{Archive: path, RunOptions: engine.RunOptions{Command: []string{"nothere"}}})
		}, "nothere", ""},
		"no archive": {func(t testing.TB) { Start(t, Options{Archive: "nothere.tar"}) }, "nothere.tar", ""},
		"a pattern":  {func(t testing.TB) { Start(t, script(path, "sleep 1000")).WaitForLog("(") }, "error parsing regexp", ""},
		"is patient for so long": {func(t testing.TB) {
			o := script(path, "sleep 1000")
			c := Start(t, o)
			c.timeout = 1
			c.WaitForPort("tcp", "localhost:80")
		}, "1ns have passed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			why, logged := try(t, tc.test)
			if !strings.Contains(why, tc.want) || !strings.Contains(logged, tc.logged) {
				t.Errorf("ended with %q, want %q; logged %q, want %q", why, tc.want, logged, tc.logged)
			}
		})
	}
}

func TestMainIsNeeded(t *testing.T) {
	t.Setenv(mainVariable, "")
	if why, _ := try(t, func(t testing.TB) { Start(t, Options{}) }); !strings.Contains(why, "call nooktest.Main in TestMain") {
		t.Errorf("got %q", why)
	}
}

func TestOutputKeepsTheEnd(t *testing.T) {
	var o output
	line := strings.Repeat("x", 99) + "\n"
	for range 4 * mostKept / len(line) {
		_, _ = io.WriteString(&o, line)
	}
	_, _ = io.WriteString(&o, "last\n")
	if got := o.String(); len(got) != mostKept || !strings.HasSuffix(got, "x\nlast\n") || len(o.text) > 2*mostKept {
		t.Errorf("%d bytes of %d kept, want %d", len(got), len(o.text), mostKept)
	}
	if got := strings.Count(o.tail(), "\n"); got != tailLines {
		t.Errorf("a tail of %d lines, want %d", got, tailLines)
	}
}
