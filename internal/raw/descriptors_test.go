package raw

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCloseOnExecLeavesTheStandardStreams: a descriptor that this process was
// started with doesn't get through an exec, whichever way it is kept from it.
func TestCloseOnExecLeavesTheStandardStreams(t *testing.T) {
	leaked, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // as a shell would
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)
	for _, way := range []string{"close_range", "fcntl", "none"} {
		t.Run(way, func(t *testing.T) {
			p := New(DefaultSize)
			defer p.Close()
			if way != "none" {
				p.closeOnExec(way == "fcntl")
			}
			shell(p, `test -e /proc/$$/fd/`+strconv.Itoa(leaked)+` && exit 1; exit 0`)
			ws, e := start(t, p, 0)
			if e != nil || ws.ExitStatus() != 0 && way != "none" {
				t.Errorf("status %d, report %v: want the descriptor closed", ws.ExitStatus(), e)
			}
			if way == "none" && ws.ExitStatus() != 1 {
				t.Errorf("status %d without the step, want 1: else this test shows nothing", ws.ExitStatus())
			}
		})
	}
	for _, fd := range inheritable() {
		if fd == leaked {
			return
		}
	}
	t.Errorf("inheritable() = %v, want %d among them", inheritable(), leaked)
}

func TestInheritableLeavesOutOurOwn(t *testing.T) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, fd := range inheritable() {
		if fd <= 2 || fd == int(f.Fd()) {
			target, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
			t.Errorf("inheritable() has %d (%s)", fd, strings.TrimSpace(target))
		}
	}
}
