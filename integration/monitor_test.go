package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// TestContainerEndsWithItsMonitor: whatever kills the monitor, no process of
// the container outlives it, also when its entrypoint changed user (which
// clears PR_SET_PDEATHSIG).
func TestContainerEndsWithItsMonitor(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		for _, user := range []string{"root", "alice"} {
			t.Run(user, func(t *testing.T) {
				h := newTestHost(t, m)
				h.run(t, "nook", "load", "-q", "-i", busybox)
				// A second process, so that not only pid 1 is looked at.
				mark := fmt.Sprintf("mark%d.", os.Getpid())
				cmd := h.cmd("nook", "run", "--rm", "-u", user, "busybox", "sh", "-c", "sh -c 'sleep 100000; : "+mark+"' & echo ready; wait")
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
					t.Fatalf("the container says %q", line)
				}
				inside := h.inside(t, mark, 2) // the shell and its child
				monitor := parent(t, pid1(t, inside))
				if err := unix.Kill(monitor, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				for _, pid := range inside {
					if !ended(pid, patience) {
						t.Errorf("process %d outlives its monitor", pid)
					}
				}
				if err := cmd.Wait(); err == nil {
					t.Error("nook run answers success for a container that was killed")
				}
			})
		}
	})
}

// inside waits for that many processes with text in an argument: one that is
// executing its program has none.
func (h *host) inside(t *testing.T, text string, want int, but ...int) (pids []int) {
	t.Helper()
	err := until(func() error {
		pids = slices.DeleteFunc(withArgument(t, text), func(pid int) bool { return slices.Contains(but, pid) })
		if len(pids) != want {
			return fmt.Errorf("found processes %v of the container, want %d", pids, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// withArgument finds the processes that have an argument with text in it.
func withArgument(t *testing.T, text string) []int {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []int
	for _, f := range files {
		cmdline, _ := os.ReadFile(f)
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f))); bytes.Contains(cmdline, []byte(text)) && !bytes.Contains(cmdline, []byte("--rm")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// status reads a field of /proc/PID/status.
func status(t *testing.T, pid int, field string) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Fields(value)
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, field)
	return nil
}

// pid1 is the one that is the first process of its pid namespace.
func pid1(t *testing.T, pids []int) int {
	t.Helper()
	for _, pid := range pids {
		if ids := status(t, pid, "NSpid"); ids[len(ids)-1] == "1" {
			return pid
		}
	}
	t.Fatalf("none of %v is pid 1 of a namespace", pids)
	return 0
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	n, err := strconv.Atoi(status(t, pid, "PPid")[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
