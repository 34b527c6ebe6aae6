package build

import (
	"errors"
	"strings"
	"testing"

	"nook/internal/hint"
)

func TestGitURL(t *testing.T) {
	commit := strings.Repeat("0123456789", 4)
	for url, want := range map[string]gitWanted{
		"https://h/r.git":                           {repo: "https://h/r.git", ref: "HEAD", submodules: true},
		"https://h/r.git#v1:a/b":                    {repo: "https://h/r.git", ref: "v1", sub: "a/b", submodules: true},
		"github.com/a/b?ref=v1":                     {repo: "https://github.com/a/b", ref: "v1", submodules: true},
		"ssh://h/r?branch=x&subdir=a":               {repo: "ssh://h/r", ref: "refs/heads/x", sub: "a", submodules: true},
		"https://h/r.git?tag=v1&keep-git-dir":       {repo: "https://h/r.git", ref: "refs/tags/v1", keep: true, submodules: true},
		"https://h/r.git?submodules=false#v1":       {repo: "https://h/r.git", ref: "v1"},
		"https://h/r.git?commit=" + commit:          {repo: "https://h/r.git", ref: commit, checksum: commit, submodules: true},
		"https://h/r.git?checksum=0123456&ref=main": {repo: "https://h/r.git", ref: "main", checksum: "0123456", submodules: true},
		"git@h:a?b.git":                             {repo: "git@h:a?b.git", ref: "HEAD", submodules: true},
	} {
		if got, err := (gitSource{url: url}).read(); err != nil || got != want || !isGit(url) {
			t.Errorf("%s: %+v, %v, want %+v", url, got, err, want)
		}
	}
	for url, want := range map[string]string{
		"https://h/r.git?reff=v1":                "git URL https://h/r.git?reff=v1: unknown key reff",
		"https://h/r.git?ref=v1#v2":              "both #REF:SUBDIR and a key",
		"https://h/r.git?ref=v1&tag=v2":          "ref, branch and tag are one thing",
		"https://h/r.git?ref=--upload-pack=x":    "no git reference",
		"https://h/r.git?commit=main":            "invalid commit: main",
		"https://h/r.git?submodules=x":           "invalid submodules: x",
		"https://me:secret@h/r.git?reff=v1":      "git URL https://me:xxxxx@h/r.git?reff=v1: ",
		"https://h/r.git?subdir=a#:b":            "both #REF:SUBDIR and a key",
		"https://h/r.git?ref=a%zz&keep-git-dir=": "invalid URL escape",
	} {
		if _, err := (gitSource{url: url}).read(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}

// What git says last is mostly not what is wrong.
func TestGitFaults(t *testing.T) {
	const advice = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n"
	failed := errors.New("exit status 128")
	for said, want := range map[string]struct{ err, hint string }{
		"ssh: connect to host h port 22: Connection refused\r\n" + advice: {"ssh: connect to host h port 22: Connection refused", "is the name right, and is the host"},
		"git@h: Permission denied (publickey).\r\n" + advice:              {"git@h: Permission denied (publickey).", "has the SSH agent a key"},
		"Host key verification failed.\r\n" + advice:                      {"Host key verification failed.", "ssh has to know the host"},
		advice: {"fatal: Could not read from remote repository.", "is the name right, and has the SSH agent"},
		"fatal: unable to connect to h:\nh[0: 127.0.0.1]: errno=Connection refused\n\n": {"fatal: unable to connect to h: h[0: 127.0.0.1]: errno=Connection refused", "is the name right, and is the host"},
		"fatal: couldn't find remote ref nope\n":                                        {"fatal: couldn't find remote ref nope", "#REF is a branch, a tag or a whole commit"},
		"remote: Not Found\nfatal: repository 'http://h/x.git/' not found\n":            {"fatal: repository 'http://h/x.git/' not found", "is the name right? a private"},
		"fatal: could not read Username for 'https://h': terminal prompts disabled\n":   {"fatal: could not read Username for", "is the name right? a private"},
		"fatal: unable to access 'http://h/x.git/': Couldn't connect to server\n":       {"fatal: unable to access", "is the name right, and is the host"},
		"what is\nthis?\n": {"this?", ""},
		"":                 {"exit status 128", ""},
	} {
		err := gitFault("fetch", "h", said, failed)
		if !strings.HasPrefix(err.Error(), "git fetch of h: "+want.err) || !strings.HasPrefix(hint.Of(err), want.hint) {
			t.Errorf("%q: %v, hint %q", said, err, hint.Of(err))
		}
	}
}
