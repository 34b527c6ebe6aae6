package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nook/internal/hint"
)

// isGit says whether a context is a git URL, by docker's rules: by its scheme,
// its form user@host:path, or a path that ends in .git.
func isGit(s string) bool {
	url, _, _ := strings.Cut(s, "#")
	switch {
	case strings.HasPrefix(url, "git://"), strings.HasPrefix(url, "ssh://"), strings.HasPrefix(url, "git@"):
		return true
	case strings.HasPrefix(url, "github.com/"):
		return true
	case strings.HasPrefix(url, "http://"), strings.HasPrefix(url, "https://"), strings.HasPrefix(url, "file://"):
		return strings.HasSuffix(url, ".git")
	}
	return false
}

// cloneGit fetches one commit of a repository by the git program, and returns
// the directory in it that is meant: URL#REF:SUBDIR. Only with keep it has the
// repository's .git.
func cloneGit(ctx context.Context, url, dir string, keep bool, out io.Writer) (string, error) {
	repo, fragment, _ := strings.Cut(url, "#")
	ref, sub, _ := strings.Cut(fragment, ":")
	if strings.HasPrefix(repo, "github.com/") {
		repo = "https://" + repo
	}
	if strings.HasPrefix(ref, "-") {
		return "", fmt.Errorf("%q is no git reference", ref)
	}
	if ref == "" {
		ref = "HEAD"
	}
	git, err := exec.LookPath("git")
	if err != nil {
		return "", hint.Errorf("install git, or clone it elsewhere and give the directory", "context %s: there is no git program", url)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, git, append([]string{"-C", dir, "-c", "protocol.ext.allow=never"}, args...)...)
		// Nobody is asked for a password in the middle of a build.
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if ctx.Err() == nil && errors.As(err, &exit) {
				return hint.Errorf("what git said stands above", "git %s of %s: %w", args[0], repo, err)
			}
			return err
		}
		return nil
	}
	for _, args := range [][]string{
		{"init", "-q"},
		{"fetch", "-q", "--depth", "1", "--", repo, ref},
		{"checkout", "-q", "FETCH_HEAD"},
		{"submodule", "-q", "update", "--init", "--recursive", "--depth", "1"},
	} {
		if err := run(args...); err != nil {
			return "", err
		}
	}
	if !keep { // the history is no part of the context
		if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
			return "", err
		}
	}
	return inside(dir, sub)
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
		return "", fmt.Errorf("directory %s of the repository: %w", sub, err)
	}
	return filepath.EvalSymlinks(filepath.Join(dir, sub))
}
