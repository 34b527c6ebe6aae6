package raw

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"nook/internal/probe"
	"nook/internal/raw/walk"
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
func closeRangeRefused() bool {
	return closeRange.Ask(func() bool {
		return unix.CloseRange(math.MaxUint32, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) != nil
	})
}

var closeRange probe.Question

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

// CloseAllBut adds the closing of every descriptor above 2 but these and the
// report's; a negative number counts for none. Close-on-exec is not enough
// before paths of an image's choice are used: through /proc/self/fd/N, while
// it is open, one leads to wherever the descriptor does (CVE-2024-21626), and
// execve(2) resolves its path before it closes anything.
func (p *Program) CloseAllBut(keep ...int) { p.closeAllBut(closeRangeRefused(), 3, keep...) }

// CloseOthers is CloseAllBut for any number of descriptors that are known
// beforehand. Where close_range(2) is refused it adds nothing.
func (p *Program) CloseOthers(keep ...int) {
	if closeRangeRefused() {
		return
	}
	const first = 3
	sorted := slices.Clone(keep)
	slices.Sort(sorted)
	low := first
	for _, fd := range sorted {
		if fd > low {
			p.Call("close descriptors", unix.SYS_CLOSE_RANGE, low, fd-1, 0)
		}
		low = max(low, fd+1)
	}
	p.Call("close descriptors", unix.SYS_CLOSE_RANGE, low, uintptr(math.MaxUint32), 0)
}

// CloseFrom adds the closing of every descriptor from lowest on, but the
// report's. A child that waits for the end of a pipe or a socket must hold no
// copy of its other end.
func (p *Program) CloseFrom(lowest int) { p.closeAllBut(closeRangeRefused(), lowest) }

func (p *Program) closeAllBut(refused bool, lowest int, keep ...int) {
	if len(keep) > walk.Kept && p.arena.err == nil {
		p.arena.err = fmt.Errorf("more than %d descriptors to keep", walk.Kept)
	}
	o := walk.Op{Kind: walk.KindCloseAll, Save: -1, Step: p.name("close descriptors")}
	for i := range walk.Kept {
		o.Args[i] = walk.None
		if i < len(keep) && keep[i] >= 0 {
			o.Args[i] = uintptr(keep[i])
		}
	}
	if refused {
		o.Args[walk.Kept] = openMax()
	}
	o.Args[walk.Kept+1] = uintptr(lowest)
	p.add(o)
}

// openMax is one more than the highest number a descriptor can have.
func openMax() uintptr {
	const most = 1 << 20 // fs.nr_open of most hosts
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > most {
		return most
	}
	return uintptr(limit.Cur)
}

// ReceiveFD adds the wait for a message with a descriptor (unix(7),
// SCM_RIGHTS) of one byte, and saves the descriptor. The end of the connection
// is reported as ECANCELED: who should have sent it is gone.
func (p *Program) ReceiveFD(name string, sock int) Reg {
	control := p.Space(unix.CmsgSpace(4))
	fd := control + Addr(unix.CmsgLen(0))
	p.Put(fd, []byte{0xff, 0xff, 0xff, 0xff}) // -1: none came
	iov := p.Words(uintptr(p.Space(1)), 1)
	// struct msghdr { name, namelen, iov, iovlen, control, controllen, flags }
	msg := p.Words(0, 0, uintptr(iov), 1, uintptr(control), uintptr(unix.CmsgSpace(4)), 0)
	p.Call(name, unix.SYS_RECVMSG, sock, msg, unix.MSG_CMSG_CLOEXEC)
	step := p.add(walk.Op{Kind: walk.KindDescriptor, Save: -1, Step: p.name(name), Args: [6]uintptr{uintptr(fd)}})
	return step.Save()
}
