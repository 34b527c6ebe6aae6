package monitor

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// ended tells whether a child is a zombie already, or was reaped.
func ended(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0 || errors.Is(err, unix.ECHILD)
}

// reap waits for a child: in Go's poller, by its pidfd, which is readable when
// the process has ended (pidfd_open(2)).
func reap(pid int) (unix.WaitStatus, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return waitBlocking(pid)
	}
	f := os.NewFile(uintptr(fd), "child")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("wait for a child: %w", err)
	}
	var status unix.WaitStatus
	var failure error
	err = conn.Read(func(uintptr) bool {
		for {
			var got int
			got, failure = unix.Wait4(pid, &status, unix.WNOHANG, nil)
			if !errors.Is(failure, unix.EINTR) {
				return failure != nil || got == pid
			}
		}
	})
	if err = errors.Join(err, failure); err != nil {
		return 0, fmt.Errorf("wait for a child: %w", err)
	}
	return status, nil
}

// hostPid translates a pid of our namespace to the host's by the fdinfo of a
// pidfd, which counts as the procfs instance it is read from does
// (pidfd_open(2); kernel/fork.c, pidfd_show_fdinfo).
func hostPid(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return hostPidOfChild(pid), nil
	}
	defer unix.Close(fd)
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("read a pidfd's fdinfo: %w", err)
	}
	for line := range strings.Lines(string(info)) {
		var host int
		if n, _ := fmt.Sscanf(line, "Pid: %d", &host); n == 1 {
			return host, nil
		}
	}
	return 0, errors.New("read a pidfd's fdinfo: no Pid line")
}
