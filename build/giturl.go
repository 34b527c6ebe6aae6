package build

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"nook/internal/hint"
)

// gitSource says what is wanted of a repository.
type gitSource struct {
	url string // URL#REF:SUBDIR, or URL?ref=REF&subdir=SUBDIR
	// keep leaves the repository's .git there.
	keep bool
	// checksum is the commit that it has to be, or how its name begins; "": any.
	checksum string
}

// gitWanted is a gitSource that was taken apart.
type gitWanted struct {
	repo, ref, sub string // ref: HEAD where none is given
	keep           bool
	submodules     bool
	checksum       string
}

// read takes the URL apart.
func (src gitSource) read() (gitWanted, error) {
	want := gitWanted{keep: src.keep, checksum: src.checksum, submodules: true}
	repo, fragment, _ := strings.Cut(src.url, "#")
	want.ref, want.sub, _ = strings.Cut(fragment, ":")
	if !isSCP(repo) {
		var query string
		if repo, query, _ = strings.Cut(repo, "?"); query != "" {
			if err := want.query(query, fragment != ""); err != nil {
				return want, fmt.Errorf("git URL %s: %w", redacted(src.url), err)
			}
		}
	}
	if strings.HasPrefix(repo, "github.com/") {
		repo = "https://" + repo
	}
	want.repo = repo
	if strings.HasPrefix(want.ref, "-") {
		return want, fmt.Errorf("%q is no git reference", want.ref)
	}
	if want.ref == "" {
		want.ref = "HEAD"
	}
	return want, nil
}

// query reads what docker takes there.
func (want *gitWanted) query(text string, fragment bool) error {
	known := []string{"ref", "branch", "tag", "commit", "checksum", "subdir", "keep-git-dir", "submodules"}
	values, err := url.ParseQuery(text)
	if err != nil {
		return err
	}
	refs := 0
	for name, given := range values {
		value := given[len(given)-1]
		switch name {
		case "ref", "branch", "tag":
			refs++
			want.ref = map[string]string{"branch": "refs/heads/", "tag": "refs/tags/"}[name] + value
		case "commit", "checksum":
			if len(value) < 7 || strings.Trim(value, "0123456789abcdef") != "" {
				return hint.Errorf("it is a commit, or seven letters of one or more", "invalid %s: %s", name, value)
			}
			want.checksum = value
		case "subdir":
			want.sub = value
		case "keep-git-dir":
			want.keep, err = readSwitch(name, value)
		case "submodules":
			want.submodules, err = readSwitch(name, value)
		default:
			return hint.Errorf("the keys are "+strings.Join(known, ", "), "unknown key %s", name)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case fragment && (refs > 0 || values.Has("subdir")):
		return errors.New("both #REF:SUBDIR and a key say what is meant")
	case refs > 1:
		return errors.New("ref, branch and tag are one thing")
	case refs == 0 && !fragment && len(want.checksum) >= 40:
		want.ref = want.checksum
	}
	return nil
}

// readSwitch reads a key that may stand without a value.
func readSwitch(name, value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, hint.Errorf("true and false are known", "invalid %s: %s", name, value)
	}
	return on, nil
}

// gitFault is what git says when it fails, and what may help. Its last line is
// often the end of some good advice.
func gitFault(verb, repo, said string, err error) error {
	var lines []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return fmt.Errorf("git %s of %s: %w", verb, repo, err)
	}
	fatal := func(line string) bool {
		return strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ")
	}
	at := max(slices.IndexFunc(lines, fatal), 0)
	fact := lines[at]
	switch {
	case !fatal(fact):
		fact = lines[len(lines)-1]
	case strings.HasSuffix(fact, "Could not read from remote repository.") && at > 0:
		fact = lines[at-1] // ssh's own
	case strings.HasSuffix(fact, ":") && at+1 < len(lines):
		fact += " " + lines[at+1]
	}
	err = fmt.Errorf("git %s of %s: %s", verb, repo, fact)
	for _, known := range []struct{ has, advice string }{
		{"find remote ref", "#REF is a branch, a tag or a whole commit; git ls-remote URL lists them"},
		{"Host key verification failed", "ssh has to know the host: connect once by hand, or put its key into ~/.ssh/known_hosts"},
		{"Permission denied", "has the SSH agent a key that may read it? ssh-add -l lists them"},
		{"could not read Username", "is the name right? a private repository wants ssh, or credentials that git has (git credential)"},
		{"Authentication failed", "a private repository wants ssh, or credentials that git has (git credential)"},
		{"not found", "is the name right? a private repository is not found without credentials"},
		{"Could not read from remote", "is the name right, and has the SSH agent a key that may read it? ssh-add -l lists them"},
	} {
		if strings.Contains(fact, known.has) {
			return hint.Wrap(err, known.advice)
		}
	}
	if verb == "fetch" {
		return hint.Wrap(err, "is the name right, and is the host to be reached from here? try git ls-remote "+repo)
	}
	return err
}
