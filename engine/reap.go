package engine

import (
	"os"

	"golang.org/x/sys/unix"
)

// reap waits in the background for the end of a monitor that goes on without
// us: it is a child of this process, and a zombie if nobody asks for its
// status.
func reap(s *started) {
	end := started{pid: s.pid} // what s has open is closed by others
	go func() {
		// The poller waits, where it can: a wait4(2) keeps a thread.
		if fd, err := unix.PidfdOpen(s.pid, unix.PIDFD_NONBLOCK); err == nil {
			f := os.NewFile(uintptr(fd), "monitor")
			awaitReadable(f)
			_ = f.Close()
		}
		end.wait()
	}()
}
