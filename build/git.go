package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nook/internal/hint"
)

// isGit says whether a context is a git URL, by docker's rules: by its scheme,
// its form user@host:path, or a path that ends in .git.
func isGit(s string) bool {
	url, _, _ := strings.Cut(s, "#")
	url, _, _ = strings.Cut(url, "?")
	switch {
	case strings.HasPrefix(url, "git://"), strings.HasPrefix(url, "ssh://"), isSCP(url):
		return true
	case strings.HasPrefix(url, "github.com/"):
		return true
	case strings.HasPrefix(url, "http://"), strings.HasPrefix(url, "https://"), strings.HasPrefix(url, "file://"):
		return strings.HasSuffix(url, ".git")
	}
	return false
}

// isSCP knows the form user@host:path, as of scp(1).
func isSCP(s string) bool {
	user, rest, at := strings.Cut(s, "@")
	host, path, colon := strings.Cut(rest, ":")
	return at && colon && user != "" && user[0] != '-' && host != "" && path != "" && !strings.ContainsAny(user+host, "/:@")
}

// cloneGit fetches one commit of a repository by the git program into dir, and
// returns the directory in it that is meant. Files have mode 644 or 755, as the
// Dockerfile reference says, whatever the umask.
func cloneGit(ctx context.Context, src gitSource, dir string, out io.Writer) (string, error) {
	want, err := src.read()
	if err != nil {
		return "", err
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return "", hint.Errorf("install git, or clone it elsewhere and give the directory", "context %s: there is no git program", redacted(src.url))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	run := func(out io.Writer, args ...string) error {
		cmd := exec.CommandContext(ctx, git, append([]string{"-C", dir, "-c", "protocol.ext.allow=never"}, args...)...)
		// Nobody is asked for a password in the middle of a build.
		cmd.Env = append(gitEnvironment(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
		var said tail
		cmd.Stdout = io.MultiWriter(out, &said)
		cmd.Stderr = cmd.Stdout
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if ctx.Err() != nil || !errors.As(err, &exit) {
				return err
			}
			return gitFault(args[0], redacted(want.repo), redacted(said.text()), err)
		}
		return nil
	}
	// Submodules' URLs may be relative to origin's.
	for _, args := range [][]string{{"init", "-q"}, {"remote", "add", "--", "origin", want.repo}} {
		if err := run(out, args...); err != nil {
			return "", err
		}
	}
	// A server of files (git's "dumb" protocol) gives no part of a history.
	shallow := func(args ...string) error {
		var said strings.Builder
		err := run(&said, append(args, "--depth=1")...)
		if err != nil && strings.Contains(said.String(), "does not support shallow") {
			said.Reset()
			err = run(&said, args...)
		}
		_, _ = io.WriteString(out, said.String())
		return err
	}
	if err := shallow("fetch", "-q", "origin", want.ref); err != nil {
		return "", err
	}
	if err := run(out, "checkout", "-q", "FETCH_HEAD"); err != nil {
		return "", err
	}
	if err := checkCommit(run, want); err != nil {
		return "", err
	}
	if want.submodules {
		if err := shallow("submodule", "-q", "update", "--init", "--recursive"); err != nil {
			return "", err
		}
	}
	if !want.keep { // the history is no part of the context
		if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
			return "", err
		}
	} else if safe := redacted(want.repo); safe != want.repo { // a password is none of the image's
		for _, args := range [][]string{{"remote", "set-url", "origin", safe}, {"submodule", "-q", "sync", "--recursive"}} {
			if err := run(out, args...); err != nil {
				return "", err
			}
		}
	}
	if err := gitModes(dir); err != nil {
		return "", err
	}
	return inside(dir, want.sub)
}

// gitEnvironment is the caller's without what names a repository: git sets that
// for its hooks, and a build that one starts would check out into the caller's
// own (git rev-parse --local-env-vars).
func gitEnvironment() []string {
	local := []string{
		"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE",
		"GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_REPLACE_REF_BASE",
		"GIT_SHALLOW_FILE", "GIT_WORK_TREE",
	}
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(local, name)
	})
}

// checkCommit holds what was fetched against the checksum.
func checkCommit(run func(out io.Writer, args ...string) error, src gitWanted) error {
	if src.checksum == "" {
		return nil
	}
	var commit strings.Builder
	if err := run(&commit, "rev-parse", "FETCH_HEAD^{commit}"); err != nil {
		return err
	}
	got := strings.TrimSpace(commit.String())
	if !strings.HasPrefix(got, src.checksum) {
		return fmt.Errorf("get %s: its commit is %s, not %s", redacted(src.repo), got, src.checksum)
	}
	return nil
}

// gitModes gives files the modes that git keeps of them, which the umask took
// something of.
func gitModes(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case name == ".git":
			return fs.SkipDir
		case d.IsDir() || info.Mode().IsRegular() && info.Mode()&0o100 != 0:
			return root.Chmod(name, 0o755)
		case info.Mode().IsRegular():
			return root.Chmod(name, 0o644)
		}
		return nil
	})
}

// inside is a directory below dir, through no link that leads out of it.
func inside(dir, sub string) (string, error) {
	if sub == "" {
		return dir, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	info, err := root.Stat(filepath.FromSlash(strings.Trim(sub, "/")))
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("the repository has no directory %s", sub)
		}
		return "", fmt.Errorf("directory %s of the repository: %w", sub, err)
	}
	return filepath.EvalSymlinks(filepath.Join(dir, sub))
}
