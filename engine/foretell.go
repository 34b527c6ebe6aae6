package engine

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/atomicfile"
)

// run -d needs not wait for its container's monitor, which is a second start of
// Go: the command writes the first state itself, before the container begins,
// and is done when the entrypoint executes. The monitor takes over then
// (docs/design/start-up.md).

// foretell writes the state of a container whose monitor and pid 1 were forked.
// It tells whether it did: not every kernel says who a process's children are.
func foretell(h held, monitor int) (bool, error) {
	self, err := containers.Identify(monitor)
	if err != nil {
		return false, nil //nolint:nilerr // it is gone, and whoever asks it next finds out
	}
	pid := onlyChild(monitor)
	for tries := 0; pid == 0; tries++ { // it forks first thing, when it gets a processor
		if tries == 20 {
			return false, nil
		}
		time.Sleep(time.Millisecond / 4)
		pid = onlyChild(monitor)
	}
	state := containers.State{
		Status: containers.Running, Pid: pid, Monitor: self, Starting: true,
		Socket: containers.SocketBeside, Started: time.Now().UTC(), Health: h.cfg.FirstHealth(),
	}
	return true, h.WriteState(state, atomicfile.Volatile)
}

// onlyChild reads proc_pid_task_children(5); 0: there is none, or not one.
func onlyChild(pid int) int {
	p := strconv.Itoa(pid)
	list, err := os.ReadFile("/proc/" + p + "/task/" + p + "/children")
	if err != nil {
		return 0
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(list)))
	if err != nil {
		return 0
	}
	return child
}

// executes waits until pid 1 has executed the entrypoint, which closes the last
// writing end of the report. Anything else is the monitor's to tell, and so is
// everything once it speaks: it reads the report too, but not before it has said
// Hello.
func (s *started) executes(ctx context.Context) bool {
	const look = 100 // ms, between two looks at ctx
	fds := []unix.PollFd{{Fd: int32(s.reportFD), Events: unix.POLLIN}, {Fd: int32(s.socket), Events: unix.POLLRDHUP}}
	for ctx.Err() == nil {
		_, err := unix.Poll(fds, look)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return false
		case err != nil:
		case fds[1].Revents != 0, fds[0].Revents&unix.POLLIN != 0:
			return false
		case fds[0].Revents != 0:
			// A monitor that is killed closes its connection before pid 1 dies.
			_, _, err := unix.Recvfrom(s.socket, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return errors.Is(err, unix.EAGAIN)
		}
	}
	return false
}
