package integration

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// spoken is what a command said, and how it ended.
type spoken struct {
	args []string
	said string
	code int
}

// sideBySide runs commands of nook side by side. None hangs: the test's own
// deadline would tell.
func (h *host) sideBySide(t *testing.T, commands ...[]string) []spoken {
	t.Helper()
	answers := make([]spoken, len(commands))
	var all sync.WaitGroup
	for i, args := range commands {
		all.Go(func() {
			cmd := h.cmd("nook", args...)
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			err := cmd.Run()
			if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
				t.Error(err)
				return
			}
			answers[i] = spoken{args, said.String(), cmd.ProcessState.ExitCode()}
		})
	}
	all.Wait()
	return answers
}

// refusals are what the loser of two may say; one line and at most one hint.
var refusals = regexp.MustCompile(`\A(nook: |Error).*(is running|is busy|no such container|is not running|is in use|has no monitor|is paused|already paused|is not paused|being removed).*\n(hint: .*\n)?\z`)

// TestPairs: of two on one container one wins, and the other says
// so, or finds it done.
func TestPairs(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	stopped := []string{"create", "--name", "one", "busybox", "sleep", "100000"}
	running := []string{"run", "-d", "--name", "one", "busybox", "sleep", "100000"}
	words := strings.Fields
	tests := []struct {
		made     []string
		commands string // separated by |
		winners  []int  // how many may succeed
	}{
		{stopped, "start one | rm one", []int{1}},
		{stopped, "start one | start one", []int{1, 2}},
		{stopped, "start one | start one | start one | start one", []int{1, 2, 3, 4}},
		{stopped, "start one | rm -f one", []int{1, 2}},
		{stopped, "rm one | rm one", []int{1}},
		{stopped, "commit one two | rm one", []int{1, 2}},
		{stopped, "cp one:/bin out | rm one", []int{1, 2}},
		{stopped, "start one | cp one:/bin out", []int{1, 2}},
		{stopped, "rename one two | rename one three", []int{1, 2}},
		{stopped, "rename one two | rm one", []int{1, 2}},
		{running, "stop -t 0 one | stop -t 0 one", []int{2}},
		{running, "stop -t 0 one | start one", []int{1, 2}},
		{running, "restart -t 0 one | restart -t 0 one", []int{1, 2}},
		{running, "restart -t 0 one | rm -f one", []int{1, 2}},
		{running, "rm -f one | rm -f one", []int{1, 2}},
		{running, "rm -f one | stop -t 0 one", []int{1, 2}},
		{running, "rm -f one | commit one two", []int{1, 2}},
		{running, "pause one | pause one", []int{1}},
		{running, "pause one | rm -f one", []int{1, 2}},
	}
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		for _, test := range tests {
			t.Run(test.commands, func(t *testing.T) {
				var commands [][]string
				for text := range strings.SplitSeq(test.commands, "|") {
					commands = append(commands, words(text))
				}
				for range 5 {
					h.run(t, "nook", test.made...)
					var won int
					for _, a := range h.sideBySide(t, commands...) {
						if a.code == 0 {
							won++
						} else if !refusals.MatchString(a.said) {
							t.Errorf("nook %s exits with %d and says %q", strings.Join(a.args, " "), a.code, a.said)
						}
					}
					if !slices.Contains(test.winners, won) {
						t.Errorf("%d of %d succeed, want one of %v", won, len(commands), test.winners)
					}
					h.clear(t)
				}
			})
		}
	})
}

// clear removes all containers, and wants all of it to be done.
func (h *host) clear(t *testing.T) {
	t.Helper()
	for _, id := range strings.Fields(h.run(t, "nook", "ps", "-aq")) {
		if said, code := h.answer(t, "nook", "rm", "-f", id); code != 0 && !strings.Contains(said, "no such container") {
			t.Errorf("rm -f %s exits with %d and says %q", id, code, said)
		}
	}
	if left := h.run(t, "nook", "ps", "-a"); strings.Count(left, "\n") != 1 {
		t.Errorf("left:\n%s", left)
	}
}
