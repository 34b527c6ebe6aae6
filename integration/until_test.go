package integration

import (
	"bytes"
	"flag"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// pollStep is how long a poll waits between two looks.
const pollStep = 20 * time.Millisecond

// until looks again and again until look answers nil, which is what a test
// waits for; its patience only bounds a failure.
func until(look func() error) error {
	for late := deadline(); ; time.Sleep(pollStep) {
		if err := look(); err == nil || time.Now().After(late) {
			return err
		}
	}
}

// says runs a command until its standard output matches.
func says(command func() *exec.Cmd, pattern string) (out string, err error) {
	match, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return "", err
	}
	return out, until(func() error {
		cmd := command()
		var said bytes.Buffer
		cmd.Stderr = &said
		text, err := cmd.Output()
		out = string(text)
		switch {
		case err != nil:
			return fmt.Errorf("%w\n%s", err, said.String())
		case !match.Match(text):
			return fmt.Errorf("it says %q, want what matches %q", text, pattern)
		}
		return nil
	})
}

// until is the method for Go tests: nook says something.
func (h *host) until(t *testing.T, pattern string, args ...string) string {
	t.Helper()
	out, err := says(func() *exec.Cmd { return h.cmd("nook", args...) }, pattern)
	if err != nil {
		t.Fatalf("nook %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	f := flag.NewFlagSet("until", flag.ContinueOnError)
	pattern := f.String("says", "", "")
	ts.Check(f.Parse(args))
	if neg || f.NArg() < 1 {
		ts.Fatalf("usage: until [-says PATTERN] COMMAND ARG...")
	}
	h := ts.Value(keyHost{}).(*host)
	_, err := says(func() *exec.Cmd {
		cmd := h.cmd(f.Arg(0), f.Args()[1:]...)
		cmd.Dir = ts.MkAbs(".")
		return cmd
	}, *pattern)
	if err != nil {
		ts.Fatalf("%s: %v", strings.Join(f.Args(), " "), err)
	}
}
