package engine

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/frame"
)

// TestDetachKeys: what is typed goes on, but for the keys; how it is cut into
// reads changes nothing.
func TestDetachKeys(t *testing.T) {
	const keys = "\x10\x11" // ctrl-p ctrl-q
	for _, tc := range []struct {
		keys, typed, input string
		detach             bool
	}{
		{keys, "ls\n", "ls\n", false},
		{keys, "ls\n\x10\x11more", "ls\n", true},
		{keys, "a\x10b", "a\x10b", false},
		{keys, "\x10\x10\x11", "\x10", true},
		{keys, "\x11\x10", "\x11", false}, // the last is held back
		{"x", "abxc", "ab", true},
		{"", "\x10\x11", "\x10\x11", false},
		{"aab", "aaab", "a", true},
	} {
		for _, size := range []int{1, 2, len(tc.typed)} {
			s := &sender{keys: []byte(tc.keys)}
			var got string
			detach := false
			for rest := []byte(tc.typed); len(rest) > 0 && !detach; {
				n := min(size, len(rest))
				var input []byte
				input, detach = s.watch(rest[:n])
				got += string(input)
				rest = rest[n:]
			}
			if got != tc.input || detach != tc.detach {
				t.Errorf("keys %q, typed %q in pieces of %d: got %q, %v, want %q, %v", tc.keys, tc.typed, size, got, detach, tc.input, tc.detach)
			}
		}
	}
}

// TestEndedAfterInput: a monitor that told the end of a short command and then
// hears something else than that all is done starts, and has the output.
func TestEndedAfterInput(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	monitor := make(chan error, 1)
	go func() {
		defer theirs.Close()
		kind, _, err := frame.NewReader(theirs).Next()
		if kind != frame.StdinEOF {
			err = errors.Join(err, errors.New("no end of input came"))
		}
		monitor <- errors.Join(err, frame.Write(theirs, frame.Ended, make([]byte, 128)),
			frame.Write(theirs, frame.Stdout, []byte("out\n")), frame.Write(theirs, frame.Exit, []byte(`{"code":3}`)))
	}()
	var out bytes.Buffer
	s := &started{control: ours}
	code, running, err := s.attach(t.Context(), Streams{In: strings.NewReader(""), Out: &out, KeepSignals: true})
	if code != 3 || !running || err != nil || out.String() != "out\n" {
		t.Errorf("got %d, %v, %v and %q, want 3 and what the container wrote", code, running, err, out.String())
	}
	if err := <-monitor; err != nil {
		t.Error(err)
	}
}

// TestHush: after it nothing is sent, unless something was before.
func TestHush(t *testing.T) {
	var sent bytes.Buffer
	s := &sender{conn: &sent}
	if !s.hush() {
		t.Error("of one that sent nothing: refused")
	}
	s.send(frame.StdinEOF, nil)
	if sent.Len() > 0 {
		t.Errorf("%q was sent after it", sent.Bytes())
	}
	s = &sender{conn: &sent}
	s.send(frame.StdinEOF, nil)
	if s.hush() || sent.Len() == 0 {
		t.Errorf("of one that sent %q: taken", sent.Bytes())
	}
}
