package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/testenv/testimage"
)

// walk is what a filter leaves of a tree, as a worker would walk it.
func walk(t *testing.T, dir string, filter Filter) []string {
	t.Helper()
	var left []string
	var visit func(name string, above any)
	visit = func(name string, above any) {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			child := filepath.Join(name, e.Name())
			verdict, below := In, any(nil)
			if filter != nil {
				verdict, below = filter(child, e.IsDir(), above)
			}
			if verdict == In && !e.IsDir() {
				left = append(left, child)
			}
			if e.IsDir() && verdict != Prune {
				visit(child, below)
			}
		}
	}
	visit("", nil)
	slices.Sort(left)
	return left
}

func write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		name, text, _ := strings.Cut(name, "=")
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The rules are those of docs.docker.com/build/concepts/context, "Syntax".
func TestDockerignore(t *testing.T) {
	for name, tc := range map[string]struct{ ignore, left string }{
		"none":                 {"", "README.md a/b/c.o a/b/d.c a/x.o docs/one.md docs/two.txt top.o"},
		"comment and blank":    {"# *.o\n\n", "README.md a/b/c.o a/b/d.c a/x.o docs/one.md docs/two.txt top.o"},
		"top only":             {"*.o", "README.md a/b/c.o a/b/d.c a/x.o docs/one.md docs/two.txt"},
		"one level":            {"*/*.o", "README.md a/b/c.o a/b/d.c docs/one.md docs/two.txt top.o"},
		"any level":            {"**/*.o", "README.md a/b/d.c docs/one.md docs/two.txt"},
		"directory":            {"a", "README.md docs/one.md docs/two.txt top.o"},
		"slashes":              {"/a/b/", "README.md a/x.o docs/one.md docs/two.txt top.o"},
		"question mark":        {"to?.o", "README.md a/b/c.o a/b/d.c a/x.o docs/one.md docs/two.txt"},
		"exception":            {"docs\n!docs/one.md", "README.md a/b/c.o a/b/d.c a/x.o docs/one.md top.o"},
		"exception before":     {"!docs/one.md\ndocs", "README.md a/b/c.o a/b/d.c a/x.o top.o"},
		"all but":              {"*\n!a/b", "a/b/c.o a/b/d.c"},
		"all but by wildcard":  {"**\n!**/*.md", "README.md docs/one.md"},
		"last one counts":      {"*.md\n!README*.md\nREADME.md", "a/b/c.o a/b/d.c a/x.o docs/one.md docs/two.txt top.o"},
		"exception far below":  {"a\n!a/b/*.c", "README.md a/b/d.c docs/one.md docs/two.txt top.o"},
		"dots are cleaned":     {"a/../docs", "README.md a/b/c.o a/b/d.c a/x.o top.o"},
		"windows line endings": {"a\r\ndocs\r\n", "README.md top.o"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "README.md", "a/b/c.o", "a/b/d.c", "a/x.o", "docs/one.md", "docs/two.txt", "top.o")
			file := filepath.Join(t.TempDir(), "Dockerfile.dockerignore")
			if err := os.WriteFile(file, []byte(tc.ignore), 0o644); err != nil {
				t.Fatal(err)
			}
			src := &source{dir: dir, name: strings.TrimSuffix(file, ".dockerignore")}
			filter, err := src.ignore(Source{File: src.name}, true)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(walk(t, dir, filter), " "); got != tc.left {
				t.Errorf("left %s\nwant %s", got, tc.left)
			}
		})
	}
}

func TestIgnoreOfTheDockerfileComesFirst(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, ".dockerignore=a", "other.dockerignore=b", "a", "b")
	for name, want := range map[string]string{
		"Dockerfile": ".dockerignore b other.dockerignore",
		"other":      ".dockerignore a other.dockerignore",
	} {
		src := &source{dir: dir, name: filepath.Join(dir, name)}
		filter, err := src.ignore(Source{File: src.name}, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(walk(t, dir, filter), " "); got != want {
			t.Errorf("%s: left %s, want %s", name, got, want)
		}
	}
}

func TestBadIgnore(t *testing.T) {
	for text, want := range map[string]string{
		"!": `:1: !: illegal exclusion pattern: "!"`, "a[": ":1: a[: syntax error in pattern", "# [\n\n b\n [a-\r\nc[\n": ":4: [a-: syntax error in pattern",
	} {
		dir := t.TempDir()
		write(t, dir, ".dockerignore="+text)
		src := &source{dir: dir, name: "Dockerfile"}
		if _, err := src.ignore(Source{}, true); err == nil || err.Error() != ".dockerignore"+want || !strings.HasPrefix(hint.Of(err), "in a pattern") {
			t.Errorf("%q: %v, hint %q", text, err, hint.Of(err))
		}
	}
}

// archive is a tar stream of names; "d/" is a directory, "l->t" a symlink,
// "h=>t" a hard link, "f=text" a file.
func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg}
		text := ""
		switch {
		case strings.Contains(name, "->"):
			h.Typeflag = tar.TypeSymlink
			h.Name, h.Linkname, _ = strings.Cut(name, "->")
		case strings.Contains(name, "=>"):
			h.Typeflag = tar.TypeLink
			h.Name, h.Linkname, _ = strings.Cut(name, "=>")
		case strings.HasSuffix(name, "/"):
			h.Typeflag = tar.TypeDir
		default:
			h.Name, text, _ = strings.Cut(name, "=")
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestContextFromStdin(t *testing.T) {
	plain := archive(t, "./", "Dockerfile=FROM base\nCOPY a/b /\n", "a/", "a/b=B", "l->a/b", "h=>a/b")
	for name, data := range map[string][]byte{"tar": plain, "gzip": gzipped(t, plain)} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			if _, err := f.try(t, "", nil, func(o *Options) {
				o.Source = Source{Context: "-", Stdin: bytes.NewReader(data)}
			}); err != nil || f.files(f.made.State)["/b"] != "B" {
				t.Errorf("%q, %v", f.did, err)
			}
		})
	}
	t.Run("xz, from a URL", func(t *testing.T) {
		var packed bytes.Buffer
		w, err := xz.NewWriter(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/Dockerfile" {
				_, _ = w.Write([]byte("FROM base\nRUN of-url\n"))
				return
			}
			_, _ = w.Write(packed.Bytes())
		}))
		defer server.Close()
		f := newFake()
		if _, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: server.URL + "/a.tar.xz"} }); err != nil || f.files(f.made.State)["/b"] != "B" {
			t.Errorf("%q, %v", f.did, err)
		}
		f = newFake()
		if _, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: server.URL + "/Dockerfile"} }); err != nil || strings.Join(f.did, "") != "run of-url" {
			t.Errorf("%q, %v", f.did, err)
		}
		_, err = newFake().try(t, "", nil, func(o *Options) { o.Source = Source{Context: server.URL + "/Dockerfile", File: "x"} })
		if err == nil || !strings.Contains(err.Error(), "is no tar archive") {
			t.Errorf("-f of no archive: %v", err)
		}
	})
	t.Run("another Dockerfile in it", func(t *testing.T) {
		f := newFake()
		if _, err := f.try(t, "", nil, func(o *Options) {
			o.Source = Source{Context: "-", File: "d/x", Stdin: bytes.NewReader(archive(t, "d/x=FROM base\nRUN of-x"))}
		}); err != nil || strings.Join(f.did, "") != "run of-x" {
			t.Errorf("%q, %v", f.did, err)
		}
	})
	t.Run("only a Dockerfile", func(t *testing.T) {
		f := newFake()
		if _, err := f.try(t, "", nil, func(o *Options) {
			o.Source = Source{Context: "-", Stdin: strings.NewReader("FROM base\nRUN x\n")}
		}); err != nil || strings.Join(f.did, "") != "run x" {
			t.Errorf("%q, %v", f.did, err)
		}
	})
}

func TestBadContextFromStdin(t *testing.T) {
	outside := t.TempDir()
	for name, tc := range map[string]struct {
		data []byte
		err  string
	}{
		"empty":           {nil, "standard input is empty"},
		"cut short":       {archive(t, "Dockerfile=FROM base", "a="+strings.Repeat("x", 2000))[:2000], "unexpected EOF"},
		"dot dot":         {archive(t, "../a=x"), "it leads outside of the build context"},
		"by a link":       {archive(t, "l->"+outside, "l/a=x"), "path escapes from parent"},
		"hard link":       {archive(t, "l->"+outside, "h=>l/../../etc/passwd"), ""},
		"a file .":        {archive(t, "Dockerfile=FROM base", ".=x"), `".": its name is that of the context itself, which is a directory`},
		"a link to it":    {archive(t, "Dockerfile=FROM base", "./->x"), `its name is that of the context itself`},
		"endless holes":   {append(testimage.Hole("hole", 1<<40), archive(t, "Dockerfile=FROM base\nCOPY hole /")...), `"hole": it unpacks to far more than it is: its sparse files are over 64 GiB long`},
		"no Dockerfile":   {archive(t, "a=x"), "no Dockerfile in the context"},
		"broken gzip":     {gzipped(t, archive(t, "a=x"))[:20], ""},
		"xz":              {[]byte("\xfd7zXZ\x00 and more, no stream"), "the xz stream is damaged"},
		"Dockerfile link": {archive(t, "Dockerfile->/etc/passwd"), "path escapes from parent"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			_, err := f.try(t, "", nil, func(o *Options) {
				o.Source = Source{Context: "-", Stdin: bytes.NewReader(tc.data)}
			})
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want %s", err, tc.err)
			}
			if left, _ := os.ReadDir(outside); len(left) > 0 {
				t.Errorf("written outside: %v", left)
			}
		})
	}
}

// Later entries take the places of earlier ones, as with tar; holes take no
// room.
func TestContextEntriesReplaceEachOther(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "context")
	data := append(testimage.Hole("hole", 8<<20), archive(t,
		"a=file", "a/", "a/b=in a", "c/d/e=deep", "c=file", "f=file", "f/g/h=below", "l->f", "l=no link", "d->f/g", "d/i=by a link", "k->none", "k/")...)
	if err := unpackContext(t.Context(), bytes.NewReader(data), dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a/b": "in a", "c": "file", "f/g/h": "below", "f/g/i": "by a link", "l": "no link", "hole": strings.Repeat("\x00", 8<<20),
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: got %.20q, %v", name, got, err)
		}
	}
	if info, err := os.Lstat(filepath.Join(dir, "k")); err != nil || !info.IsDir() {
		t.Errorf("k: %v, %v", info, err)
	}
	info, err := os.Stat(filepath.Join(dir, "hole"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Blocks > 64 {
		t.Errorf("the hole takes %d blocks", st.Blocks)
	}
}

func TestPackedContextIsNoBomb(t *testing.T) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: 3 << 30}); err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	packed := z.EncodeAll(head.Bytes(), nil)
	packed = append(packed, bytes.Repeat(z.EncodeAll(make([]byte, 1<<20), nil), 3<<10)...)
	_, err = newFake().try(t, "", nil, func(o *Options) { o.Source = Source{Context: "-", Stdin: bytes.NewReader(packed)} })
	if !errors.Is(err, layers.ErrBomb) || !strings.Contains(err.Error(), "1024 MiB came of") || !strings.Contains(hint.Of(err), "unpack it first") {
		t.Errorf("got %v (%s)", err, hint.Of(err))
	}
}

func TestDockerfileByName(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "dockerfile=FROM base\nRUN small", "d/other=FROM base\nRUN other")
	f := newFake()
	if _, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: dir} }); err != nil || f.did[0] != "run small" {
		t.Errorf("%q, %v", f.did, err)
	}
	if _, err := f.try(t, "", nil, func(o *Options) {
		o.Source = Source{Context: dir, File: filepath.Join(dir, "d/other")}
	}); err != nil || f.did[0] != "run other" {
		t.Errorf("%q, %v", f.did, err)
	}
	_, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: dir, File: "d/other"} })
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(hint.Of(err), "-f "+filepath.Join(dir, "d/other")) {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
	out := t.TempDir() // a Dockerfile that is a link out of the context
	if err := os.Symlink(filepath.Join(dir, "d/other"), filepath.Join(out, "Dockerfile")); err != nil {
		t.Fatal(err)
	}
	_, err = f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: out} })
	if err == nil || hint.Of(err) != "it is a symlink, and what it leads to has to be in the context; -f FILE takes any" {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
	if _, err := f.try(t, "", nil, func(o *Options) {
		o.Source = Source{Context: out, File: filepath.Join(out, "Dockerfile")}
	}); err != nil {
		t.Error(err)
	}
}
