package containers

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"KILL": unix.SIGKILL, "SIGKILL": unix.SIGKILL, "kill": unix.SIGKILL, "sigQuit": unix.SIGQUIT,
		"9": unix.SIGKILL, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX": 64, "rtmax-14": 50,
	} {
		if got, err := ParseSignal(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "SIG", "0", "65", "-9", "NOSUCH", "RTMIN+31", "RTMIN-1", "RTMAX-31", "9 "} {
		if got, err := ParseSignal(text); !errors.Is(err, ErrSignal) {
			t.Errorf("%q: got %d, %v, want ErrSignal", text, got, err)
		}
	}
}
