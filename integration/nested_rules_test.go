package integration

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rule is a system call, or a range of them, that a seccomp filter refuses.
// The command refuse does the same for whole calls by their names; these also
// look at an argument.
type rule struct {
	first, last uint32 // numbers; last 0 means first
	// look says that only calls with arg&mask == value are meant, of the
	// argument's lower half.
	look        bool
	arg         int
	mask, value uint32
	errno       unix.Errno
}

// withRules runs f with a filter on whatever processes it starts: on a thread
// that ends with it.
func withRules(rules []rule, f func() error) error {
	if len(rules) == 0 {
		return f()
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		if err := filterThread(rules); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func filterThread(rules []rule) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
	}
	code := filter(rules)
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp SECCOMP_SET_MODE_FILTER: %w", errno)
	}
	return nil
}

// filter assembles the rules; the offsets are those of struct seccomp_data.
func filter(rules []rule) []unix.SockFilter {
	const number, args = 0, 16
	load := func(offset int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(offset)}
	}
	ret := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	var code []unix.SockFilter
	for _, r := range rules {
		tail := []unix.SockFilter{ret(unix.SECCOMP_RET_ERRNO | uint32(r.errno))}
		if r.look {
			tail = []unix.SockFilter{
				load(args + 8*r.arg), // both machines are little endian
				{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: r.mask},
				{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.value, Jf: 1},
				tail[0],
			}
		}
		last := max(r.first, r.last)
		past := uint8(len(tail))
		code = append(code, load(number),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: r.first, Jf: past + 1},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: last, Jt: past})
		code = append(code, tail...)
	}
	return append(code, ret(unix.SECCOMP_RET_ALLOW))
}
