package raw

import (
	"math"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// CloseOnExec adds the marking of every descriptor above 2 as close-on-exec:
// Go opens its own that way, but those that this process was started with, as
// by a shell's `exec 7<secret`, would reach whatever is executed.
func (p *Program) CloseOnExec() {
	p.closeOnExec(closeRangeRefused())
}

func (p *Program) closeOnExec(refused bool) {
	const name = "mark descriptors close-on-exec"
	if !refused {
		p.Call(name, unix.SYS_CLOSE_RANGE, 3, uintptr(math.MaxUint32), unix.CLOSE_RANGE_CLOEXEC)
		return
	}
	for _, fd := range inheritable() {
		p.Call(name, unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC).Ignore(unix.EBADF)
	}
}

// closeRangeRefused tries the call where no descriptor can be. The flag is of
// Linux 5.11; filters older than the call refuse it.
var closeRangeRefused = sync.OnceValue(func() bool {
	return unix.CloseRange(math.MaxUint32, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) != nil
})

// inheritable lists what an exec would leave open above 2. Without /proc it
// looks at as many numbers as the limit of most shells allows.
func inheritable() []int {
	var all []int
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				all = append(all, fd)
			}
		}
	} else {
		const usual = 1024
		for fd := range usual {
			all = append(all, fd)
		}
	}
	var out []int
	for _, fd := range all {
		if fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			out = append(out, fd)
		}
	}
	return out
}
