package monitor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a filter of the host that refuses pidfd_open(2) leaves.

// waitBlocking is reap with a thread that waits.
func waitBlocking() (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(child, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for pid 1: %w", err)
		default:
			return ws, nil
		}
	}
}

// hostPidOfChild is hostPid for our one child: the host's /proc lists it under
// its parent (proc_pid_task_children(5)). It is 0 where the kernel was built
// without that list: who needs the number has the monitor's.
func hostPidOfChild() int {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return 0
	}
	list, err := os.ReadFile("/proc/self/task/" + self + "/children")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(list)), " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return pid
}
