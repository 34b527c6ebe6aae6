package build

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/testenv"
)

func TestIsGit(t *testing.T) {
	for url, want := range map[string]bool{
		"https://h/r.git": true, "https://h/r.git#v1:sub": true, "http://h/r.tar.gz": false, "git@h:r.git": true,
		"git://h/r": true, "ssh://h/r": true, "github.com/a/b": true, ".": false, "dir.git": false, "/a/b": false,
		"file:///r.git": true, "https://h/r.git?ref=v1": true, "https://h/r.tar?a=r.git": false,
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
	for fragment, want := range map[string]string{"": "later", "#v1": "one", "#:sub": "", "#v1:sub": "", "?tag=v1&subdir=sub": "", "?ref=v1": "one"} {
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
	for value, want := range map[string]bool{"1": true, "0": false} {
		o := Options{Source: Source{Context: "file://" + repo}, Args: map[string]string{"BUILDKIT_CONTEXT_KEEP_GIT_DIR": value}, Temp: t.TempDir()}
		_, err := Build(t.Context(), newFake(), o)
		if _, there := os.Stat(filepath.Join(o.Temp, "context", ".git")); err != nil || (there == nil) != want {
			t.Errorf("keep the .git, %s: %v, %v", value, there, err)
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
