package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/testenv"
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
	for _, text := range []string{"!", "a[", "[a-"} {
		dir := t.TempDir()
		write(t, dir, ".dockerignore="+text)
		src := &source{dir: dir, name: "Dockerfile"}
		if _, err := src.ignore(Source{}, true); err == nil || !strings.HasPrefix(err.Error(), ".dockerignore: ") {
			t.Errorf("%q: %v", text, err)
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
}

func TestIsGit(t *testing.T) {
	for url, want := range map[string]bool{
		"https://h/r.git": true, "https://h/r.git#v1:sub": true, "http://h/r.tar.gz": false, "git@h:r.git": true,
		"git://h/r": true, "ssh://h/r": true, "github.com/a/b": true, ".": false, "dir.git": false, "/a/b": false,
		"file:///r.git": true,
	} {
		if got := isGit(url); got != want {
			t.Errorf("%s: %t", url, got)
		}
	}
}

func TestGitContext(t *testing.T) {
	testenv.Need(t, "git", testenv.Git)
	repo := filepath.Join(t.TempDir(), "r.git")
	write(t, repo, "Dockerfile=FROM base\nCOPY a /\n", "a=one", "sub/Dockerfile=FROM base\nCOPY b /\n", "sub/b=two")
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	if err := os.Chmod(filepath.Join(repo, "sub", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "main")
	git("add", ".")
	git("commit", "-qm", "one")
	git("tag", "v1")
	write(t, repo, "a=later")
	git("commit", "-qam", "two")
	git("update-server-info")
	for fragment, want := range map[string]string{"": "later", "#v1": "one", "#:sub": "", "#v1:sub": ""} {
		f := newFake()
		_, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: "file://" + repo + fragment} })
		files := f.files(f.made.State)
		if err != nil || files["/a"] != want || want == "" && files["/b"] != "two" {
			t.Errorf("%s: %q, %v", fragment, files, err)
		}
	}
	for fragment, want := range map[string]string{"#none": "git fetch of file://" + repo + ": fatal: couldn't find remote ref none", "#:none": "the repository has no directory none", "#--upload-pack=x": "no git reference", "#:../..": "directory"} {
		f := newFake()
		_, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: "file://" + repo + fragment} })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", fragment, err)
		}
	}
	f := newFake()
	dumb := httptest.NewServer(http.StripPrefix("/r.git", http.FileServer(http.Dir(filepath.Join(repo, ".git")))))
	defer dumb.Close()
	_, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: dumb.URL + "/r.git#v1"} })
	if files := f.files(f.made.State); err != nil || files["/a"] != "one" {
		t.Errorf("a server of files: %q, %v", files, err)
	}
	ssh := filepath.Join(t.TempDir(), "ssh") // which stays here
	if err := os.WriteFile(ssh, []byte("#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_SSH_COMMAND", ssh)
	for flag, want := range map[string]bool{"": false, "--keep-git-dir ": true, "--keep-git-dir=false ": false} {
		f := newFake()
		_, err := f.try(t, "FROM base\nADD "+flag+"ssh://h"+repo+"#v1 /r", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		tree := f.copies[len(f.copies)-1].From.Tree.Dir
		text, err := os.ReadFile(filepath.Join(tree, "a"))
		_, without := os.Stat(filepath.Join(tree, ".git", "HEAD"))
		if err != nil || string(text) != "one" || (without == nil) != want {
			t.Errorf("ADD %s: %q, %v, %v", flag, text, err, without)
		}
	}
	testGitChecksum(t, repo)
	testGitModes(t, repo)
	testGitSubmodule(t)
	testGitOfAHook(t, repo)
	t.Setenv("PATH", t.TempDir())
	if _, err := cloneGit(context.Background(), gitSource{url: "https://h/r.git"}, "", io.Discard); err == nil || !strings.HasPrefix(hint.Of(err), "install git") {
		t.Errorf("without git: %v", err)
	}
}

func testGitChecksum(t *testing.T, repo string) {
	t.Helper()
	out, err := exec.Command("git", "-C", repo, "rev-parse", "v1^{commit}").Output()
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(out))
	for checksum, want := range map[string]string{
		commit: "", commit[:7]: "", "1234567": "its commit is " + commit + ", not 1234567",
		commit[:6]: "invalid checksum", strings.ToUpper(commit) + "G": "invalid checksum",
	} {
		f := newFake()
		_, err := f.try(t, "FROM base\nADD --checksum="+checksum+" ssh://h"+repo+"#v1 /r", nil, nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", checksum, err, want)
		}
	}
}

// Files have the modes that git knows, whatever the umask.
func testGitModes(t *testing.T, repo string) {
	t.Helper()
	old := unix.Umask(0o077)
	dir, err := cloneGit(t.Context(), gitSource{url: "file://" + repo}, filepath.Join(t.TempDir(), "c"), io.Discard)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"a": 0o644, "sub": 0o755, "sub/b": 0o755, "sub/Dockerfile": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
}

// A build that a hook of git starts leaves the repository of the hook alone.
func testGitOfAHook(t *testing.T, repo string) {
	t.Helper()
	own := t.TempDir()
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "own"}} {
		if out, err := exec.Command("git", append([]string{"-C", own}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	head := func() string {
		out, err := exec.Command("git", "--git-dir", filepath.Join(own, ".git"), "log", "--format=%s %D").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := head()
	t.Setenv("GIT_DIR", filepath.Join(own, ".git"))
	t.Setenv("GIT_INDEX_FILE", filepath.Join(own, ".git", "index"))
	f := newFake()
	if _, err := f.try(t, "", nil, func(o *Options) { o.Source = Source{Context: "file://" + repo + "#v1"} }); err != nil {
		t.Error(err)
	}
	if after := head(); after != before {
		t.Errorf("the hook's repository was at %q, and is at %q", before, after)
	}
}

// The URL of a submodule may be relative to the repository's; a password in
// that doesn't stay with --keep-git-dir.
func testGitSubmodule(t *testing.T) {
	t.Helper()
	top := t.TempDir()
	git := func(dir string, args ...string) {
		t.Helper()
		args = append([]string{"-C", filepath.Join(top, dir), "-c", "protocol.file.allow=always", "-c", "user.name=a", "-c", "user.email=a@b"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args, err, out)
		}
	}
	write(t, filepath.Join(top, "lib"), "l=of the library")
	write(t, filepath.Join(top, "main"), "m=main")
	for _, dir := range []string{"lib", "main"} {
		git(dir, "init", "-q", "-b", "main")
		if dir == "main" {
			git(dir, "submodule", "-q", "add", "../lib/.git", "lib")
			git(dir, "config", "-f", ".gitmodules", "submodule.lib.url", "../lib.git")
		}
		git(dir, "add", ".")
		git(dir, "commit", "-qm", "one")
		git(dir, "update-server-info")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
		http.ServeFile(w, r, filepath.Join(top, name, ".git", rest))
	}))
	defer server.Close()
	url := strings.Replace(server.URL, "://", "://me:s3cret@", 1) + "/main.git"
	dir, err := cloneGit(t.Context(), gitSource{url: url, keep: true}, filepath.Join(t.TempDir(), "c"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "lib", "l")); err != nil || string(text) != "of the library" {
		t.Errorf("the submodule has %q, %v", text, err)
	}
	for _, config := range []string{".git/config", ".git/modules/lib/config"} {
		if text, err := os.ReadFile(filepath.Join(dir, config)); err != nil || strings.Contains(string(text), "s3cret") {
			t.Errorf("%s: %v\n%s", config, err, text)
		}
	}
}
