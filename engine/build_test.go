package engine

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// buildOn builds lines on busybox, with files around them, and prints with RUN.
func buildOn(t *testing.T, e *Engine, lines string, files map[string]string, change ...func(*build.Options)) (string, error) {
	t.Helper()
	all := map[string]string{"Dockerfile": "FROM busybox\n" + lines}
	for name, text := range files {
		all[name] = text
	}
	b, err := buildDockerfile(t, e, contextOf(t, all), change...)
	return b.out, err
}

func TestCopy(t *testing.T) {
	files := map[string]string{
		"f": "f", "g": "g", "d/a": "a", "d/sub/b": "b", "d/sub/deep/c": "c", "other/a": "other", "other/sub/x": "x",
	}
	for _, tc := range []struct{ name, lines, want string }{
		{"to a name", "COPY f /new\nRUN cat /new", "f"},
		{"into a directory", "COPY f /tmp\nRUN cat /tmp/f", "f"},
		{"into one that is made", "COPY f /x/y/\nRUN cat /x/y/f; stat -c %a /x /x/y", "f755\n755\n"},
		{"over a file", "COPY f /new\nCOPY g /new\nRUN cat /new", "g"},
		{"what is in a directory", "COPY d /x\nRUN cd x && find . | sort", ".\n./a\n./sub\n./sub/b\n./sub/deep\n./sub/deep/c\n"},
		{"into what is there", "COPY d /x\nCOPY other /x\nRUN cd x && cat a && find . -type f | sort", "other./a\n./sub/b\n./sub/deep/c\n./sub/x\n"},
		{"wildcards", "COPY d/*/b [fg] /x/\nRUN cd x && find . -type f | sort", "./b\n./f\n./g\n"},
		{"parents", "COPY --parents d/sub/b other /x/\nRUN cd x && find . -type f | sort", "./d/sub/b\n./other/a\n./other/sub/x\n"},
		{"parents from a dot on", "COPY --parents ./d/./sub/b d/./sub/deep /x/\nRUN cd x && find . -type f | sort", "./sub/b\n./sub/deep/c\n"},
		{"exclude", "COPY --exclude=**/b --exclude=a d /x\nRUN cd x && find . -type f", "./sub/deep/c\n"},
		{"a link of the image", "RUN mkdir real && ln -s real link && ln -s /real/file file\nCOPY f /link/\nCOPY g /file\nRUN cat real/f real/file; readlink link", "fgreal\n"},
		{"mode", "COPY --chmod=4711 f /f\nCOPY --chmod=u=rwX,go=r d /d\nRUN stat -c %a /f /d/a /d/sub", "4711\n644\n744\n"},
		{"owner by number", "COPY --chown=0:0 f /f\nRUN stat -c %u:%g /f", "0:0\n"},
		{"of a stage", "RUN mkdir -p /o/e && echo x >/o/e/x && chmod 700 /o/e && ln -s e /o/l\nFROM busybox\nCOPY --from=0 /o /p\nRUN cd p && stat -c %a e && cat l/x && readlink l", "700\nx\ne\n"},
		{"of a stage what a later layer hides", "RUN mkdir /o && touch /o/a /o/b\nRUN rm /o/a && touch /o/c\nFROM busybox\nCOPY --from=0 /o /p\nRUN ls /p", "b\nc\n"},
		{"of a stage with wildcards", "RUN mkdir /o && touch /o/a.x /o/b.x /o/c\nFROM busybox\nCOPY --from=0 /o/*.x /p/\nRUN ls /p", "a.x\nb.x\n"},
		{"linked", "COPY --link f /x/\nCOPY --link g /x/\nRUN cat /x/f /x/g", "fg"},
		{"linked, for a user by name", "RUN echo me:x:0:0:::/bin/sh >>/etc/passwd\nCOPY --link --chown=me f /x/\nRUN stat -c %u /x/f", "0\n"},
		{"heredoc", "COPY <<a <<b /x/\none\na\ntwo\nb\nRUN cat /x/a /x/b", "one\ntwo\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := loaded(t, "single", nil)
			got, err := buildOn(t, e, tc.lines, files)
			if err != nil || got != tc.want {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestCopyRefuses(t *testing.T) {
	files := map[string]string{"f": "f", "d/a": "a", "e/d/a": "a"}
	for _, tc := range []struct{ name, lines, want string }{
		{"nothing", "COPY none /", "not found"},
		{"a wildcard of nothing", "COPY none* /", "not found"},
		{"outside", "COPY ../f /", "outside"},
		{"a link outside", "COPY out /x/", "not found"},
		{"a directory over a file", "RUN touch /x\nCOPY d /x", ": /x: a file is in the place of a directory"},
		{"a directory over a file in it", "RUN mkdir /x && touch /x/d\nCOPY e /x", ": /x/d: a file is in the place of a directory"},
		{"a directory over a link", "RUN mkdir /x && ln -s /tmp /x/d\nCOPY e /x", ": /x/d: a symlink is in the place of a directory"},
		{"a file over a directory", "RUN mkdir -p /x/f\nCOPY f /x/", ": /x/f: a directory is in the place of a file"},
		{"a file over a directory in it", "RUN mkdir -p /x/a\nCOPY d /x", ": /x/a: a directory is in the place of a file"},
		{"a user that isn't there", "COPY --chown=nobody-here f /", "nobody-here"},
		{"a mode that is none", "COPY --chmod=9 f /", "chmod"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := loaded(t, "single", nil)
			all := map[string]string{"Dockerfile": "FROM busybox\n" + tc.lines}
			for name, text := range files {
				all[name] = text
			}
			dir := contextOf(t, all)
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, "out")); err != nil {
				t.Fatal(err)
			}
			_, err := buildDockerfile(t, e, dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
			if left, _ := filepath.Glob(filepath.Join(e.root, "build", ".staging", "[^.]*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestSquashKeepsWhatIsLeft(t *testing.T) {
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY f /f\nRUN echo big >/big && echo g >/g\nRUN rm /big /bin/wc && echo more >>/f\n", "f": "f\n",
	})
	b := mustBuild(t, e, dir, func(o *build.Options) { o.Squash = true })
	config, err := e.images.Config(b.Image)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(config.RootFS.DiffIDs); n != 2 {
		t.Errorf("the image has %d layers, want the base's and one", n)
	}
	got, err := run(t, e, RunOptions{Image: "made", Remove: true, Command: []string{"sh", "-c", "cat /f /g; ls /big /bin/wc 2>/dev/null"}})
	if err != nil || got.out != "f\nmore\ng\n" {
		t.Errorf("the image printed %q, %v", got.out, err)
	}
}

func TestAddUnpacks(t *testing.T) {
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{
		"Dockerfile": "FROM busybox\nRUN mkdir -p /real /d/have && ln -s /real /d/link\nADD a.tar.gz plain.tar f /d/\nCOPY a.tar.gz /c/\n" +
			"RUN cd /d; cat have/x real.txt link/in plain f; readlink l; cat h; ls -l /c | grep -c a.tar.gz; cat /real/in; stat -c '%a %Y' have/x\n",
		"f": "f\n",
	})
	var packed, plain bytes.Buffer
	z := gzip.NewWriter(&packed)
	for w, entries := range map[io.Writer][]tar.Header{
		z: {
			{Typeflag: tar.TypeDir, Name: "have/", Mode: 0o700},
			{Name: "have/x", Mode: 0o640}, {Name: "real.txt", Mode: 0o644}, {Name: "./link/in", Mode: 0o644},
			{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../../../etc/passwd"},
			{Typeflag: tar.TypeLink, Name: "h", Linkname: "have/x"},
		},
		&plain: {{Name: "plain", Mode: 0o644}},
	} {
		out := tar.NewWriter(w)
		for _, h := range entries {
			h.ModTime = time.Unix(1e9, 0)
			text := h.Name + "\n"
			if h.Typeflag == 0 {
				h.Size = int64(len(text))
			}
			if err := out.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Size > 0 {
				if _, err := io.WriteString(out, text); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"a.tar.gz": packed.Bytes(), "plain.tar": plain.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := mustBuild(t, e, dir)
	want := "have/x\nreal.txt\n./link/in\nplain\nf\n../../../etc/passwd\nhave/x\n1\n./link/in\n640 1000000000\n"
	if b.out != want {
		t.Errorf("got %q, want %q", b.out, want)
	}
}

func TestRunMounts(t *testing.T) {
	for _, tc := range []struct{ name, lines, want string }{
		{"tmpfs", "RUN --mount=type=tmpfs,target=/x touch /x/f && ls /x\nRUN ls -d /x 2>/dev/null || echo gone", "f\ngone\n"},
		{"cache", "RUN --mount=type=cache,target=/x echo 1 >>/x/f\nRUN --mount=type=cache,target=/x echo 2 >>/x/f && cat /x/f && ls -d /x\nRUN ls -d /x 2>/dev/null || echo gone", "1\n2\n/x\ngone\n"},
		{"cache that begins with files", "RUN mkdir /s && echo s >/s/f\nFROM busybox\nRUN --mount=type=cache,target=/x,from=0,source=/s cat /x/f && echo t >/x/f\nRUN --mount=type=cache,target=/x,from=0,source=/s cat /x/f", "s\nt\n"},
		{"bind of the context", "RUN --mount=type=bind,target=/x cat /x/f && ls /x", "f\nf\n"},
		{"bind of a file", "RUN --mount=source=f,target=/x/y cat /x/y", "f\n"},
		{"bind of a stage", "RUN mkdir -p /s/t && echo s >/s/t/f\nFROM busybox\nRUN --mount=from=0,source=/s/t,target=/x cat /x/f && ls /x", "s\nf\n"},
		{"writes to a bind are lost", "RUN --mount=type=bind,target=/x,rw echo new >/x/f && cat /x/f\nRUN --mount=type=bind,target=/x cat /x/f", "new\nf\n"},
		{"secret", "RUN --mount=type=secret,id=s cat /run/secrets/s && stat -c %a /run/secrets/s\nRUN ls -d /run/secrets 2>/dev/null || echo gone", "hidden400\ngone\n"},
		{"secret elsewhere", "RUN --mount=type=secret,id=s,target=/etc/s,mode=0444 cat /etc/s && stat -c %a /etc/s\nRUN ls /etc/s 2>/dev/null || echo gone", "hidden444\ngone\n"},
		{"a script", "RUN <<E\n#!/bin/cat\nme\nE", "#!/bin/cat\nme\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := loaded(t, "single", nil)
			dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\n" + tc.lines, "f": "f\n", ".dockerignore": "Dockerfile\n.dockerignore\n"})
			secret := filepath.Join(t.TempDir(), "s")
			if err := os.WriteFile(secret, []byte("hidden"), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := buildDockerfile(t, e, dir, func(o *build.Options) { o.Secrets = map[string]build.Secret{"s": {Path: secret}} })
			if err != nil || b.out != tc.want {
				t.Errorf("got %q, %v; want %q", b.out, err, tc.want)
			}
		})
	}
}
