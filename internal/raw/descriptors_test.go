package raw

import (
	"errors"
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

// TestCloseAllButKeepsWhatIsAsked: also for execve(2)'s own path, which is
// looked up before close-on-exec comes into force.
func TestCloseAllButKeepsWhatIsAsked(t *testing.T) {
	var fds [4]int
	for i := range fds {
		fd, err := unix.Open("/usr", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	high, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 900)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(high)
	for _, refused := range []bool{false, true} {
		for fd, want := range map[int]error{fds[0]: nil, fds[1]: unix.ENOENT, fds[2]: nil, fds[3]: unix.ENOENT, high: unix.ENOENT} {
			p := New(DefaultSize)
			p.closeAllBut(refused, 3, fds[2], -1, fds[0])
			p.Call("look", unix.SYS_CHDIR, "/proc/self/fd/"+strconv.Itoa(fd))
			shell(p, "exit 0")
			_, e := start(t, p, 0) // which tells of errors through the report's descriptor
			switch {
			case want == nil && e != nil:
				t.Errorf("refused %v, kept %d: %v", refused, fd, e)
			case want != nil && (e == nil || !errors.Is(e, want)):
				t.Errorf("refused %v, descriptor %d: %v, want %v", refused, fd, e, want)
			}
			p.Close()
		}
	}
}
