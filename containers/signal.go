package containers

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// ErrSignal says that a text names no signal.
var ErrSignal = errors.New("invalid signal")

// ParseSignal reads a signal as docker's users write it: KILL, SIGKILL, 9,
// RTMIN+3.
func ParseSignal(s string) (unix.Signal, error) {
	const highest = 64
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= highest {
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum("SIG" + name); n != 0 && name != "" {
		return n, nil
	}
	const rtmin, rtmax = 34, highest // as glibc and docker count them
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "+")); err == nil && rtmin+n <= rtmax {
			return unix.Signal(rtmin + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		if n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "-")); err == nil && rtmax-n >= rtmin {
			return unix.Signal(rtmax - n), nil
		}
	}
	return 0, hint.Errorf("a name as TERM or SIGTERM, or a number from 1 to 64", "signal %q: %w", s, ErrSignal)
}
