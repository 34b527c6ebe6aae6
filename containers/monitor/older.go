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
func waitBlocking(pid int) (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for a child: %w", err)
		default:
			return ws, nil
		}
	}
}

// hostPidOfChild is hostPid for a child: the host's /proc lists it under its
// parent (proc_pid_task_children(5)) and tells its pid in each namespace
// (NSpid in proc_pid_status(5)). It is 0 where the kernel was built without
// that list: who needs the number has the monitor's.
func hostPidOfChild(pid int) int {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return 0
	}
	list, err := os.ReadFile("/proc/self/task/" + self + "/children")
	if err != nil {
		return 0
	}
	for name := range strings.FieldsSeq(string(list)) {
		status, err := os.ReadFile("/proc/" + name + "/status")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(status), "\nNSpid:")
		line, _, _ := strings.Cut(rest, "\n")
		// The last is the pid in the container, the one before it ours.
		numbers := strings.Fields(line)
		if len(numbers) < 2 || numbers[len(numbers)-2] != strconv.Itoa(pid) {
			continue
		}
		if host, err := strconv.Atoi(name); err == nil {
			return host
		}
	}
	return 0
}
