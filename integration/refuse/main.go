// Command refuse runs a command whose system calls named before the -- fail
// with an error, as on a host whose kernel or seccomp profile lacks them.
//
//	refuse openat2=ENOSYS clone3=EPERM -- nook run --rm busybox true
//
// A call is a name of the table below or a number, or two numbers and all that
// is between them. What follows a colon looks at the lower half of an argument
// (0 is the first), and refuses only what matches:
//
//	refuse 424-484=ENOSYS 'clone:0&0x10000000==0x10000000=EPERM' -- COMMAND
//
// The filter needs no_new_privs when refuse has no CAP_SYS_ADMIN; setuid
// helpers such as newuidmap then don't work either.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are the ones that some step of nook has a substitute for.
var calls = map[string]uint32{
	"clone3":            unix.SYS_CLONE3,
	"bind":              unix.SYS_BIND,
	"clone":             unix.SYS_CLONE,
	"close_range":       unix.SYS_CLOSE_RANGE,
	"copy_file_range":   unix.SYS_COPY_FILE_RANGE,
	"execveat":          unix.SYS_EXECVEAT,
	"faccessat2":        unix.SYS_FACCESSAT2,
	"fsconfig":          unix.SYS_FSCONFIG,
	"fsmount":           unix.SYS_FSMOUNT,
	"fsopen":            unix.SYS_FSOPEN,
	"keyctl":            unix.SYS_KEYCTL,
	"memfd_create":      unix.SYS_MEMFD_CREATE,
	"mknodat":           unix.SYS_MKNODAT,
	"mount":             unix.SYS_MOUNT,
	"mount_setattr":     unix.SYS_MOUNT_SETATTR,
	"move_mount":        unix.SYS_MOVE_MOUNT,
	"open_tree":         unix.SYS_OPEN_TREE,
	"openat2":           unix.SYS_OPENAT2,
	"pidfd_open":        unix.SYS_PIDFD_OPEN,
	"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL,
	"pivot_root":        unix.SYS_PIVOT_ROOT,
	"renameat2":         unix.SYS_RENAMEAT2,
	"setns":             unix.SYS_SETNS,
	"statfs":            unix.SYS_STATFS,
	"unshare":           unix.SYS_UNSHARE,
}

var errnos = map[string]unix.Errno{
	"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS, "EINVAL": unix.EINVAL,
	"EACCES": unix.EACCES, "ENODEV": unix.ENODEV, "ENOSPC": unix.ENOSPC, "EOPNOTSUPP": unix.EOPNOTSUPP,
}

func main() {
	err := refuse(os.Args[1:])
	fmt.Fprintln(os.Stderr, "refuse:", err)
	os.Exit(125)
}

// refuse returns only when something is wrong.
func refuse(args []string) error {
	end := slices.Index(args, "--")
	if end < 0 || end == len(args)-1 {
		return errors.New("usage: refuse CALL=ERRNO... -- COMMAND with its arguments")
	}
	filter, err := program(args[:end])
	if err != nil {
		return err
	}
	command := args[end+1:]
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is a thread's, and exec takes the caller's
	if err := install(filter); err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, unix.Exec(path, command, os.Environ()))
}

// rule is one word before the --.
type rule struct {
	first, last uint32
	// look says that only calls with arg&mask == value are meant.
	look             bool
	arg, mask, value uint32
	errno            unix.Errno
}

// parse reads CALL[-CALL][:ARG&MASK==VALUE]=ERRNO.
func parse(word string) (r rule, err error) {
	end := strings.LastIndex(word, "=")
	if end < 0 {
		return r, fmt.Errorf("%q is not CALL=ERRNO", word)
	}
	var ok bool
	if r.errno, ok = errnos[word[end+1:]]; !ok {
		return r, fmt.Errorf("no error %q in the table", word[end+1:])
	}
	call, condition, look := strings.Cut(word[:end], ":")
	if r.look = look; look {
		if _, err := fmt.Sscanf(condition, "%d&%v==%v", &r.arg, &r.mask, &r.value); err != nil {
			return r, fmt.Errorf("%q is not ARG&MASK==VALUE: %w", condition, err)
		}
	}
	if r.first, ok = calls[call]; ok {
		r.last = r.first
		return r, nil
	}
	first, last, ok := strings.Cut(call, "-")
	if !ok {
		last = first
	}
	for _, n := range []struct {
		text string
		to   *uint32
	}{{first, &r.first}, {last, &r.last}} {
		number, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil {
			return r, fmt.Errorf("no call %q in the table", call)
		}
		*n.to = uint32(number)
	}
	return r, nil
}

// program compiles the words before the --. The offsets are those of struct
// seccomp_data.
func program(words []string) ([]unix.SockFilter, error) {
	const offNumber, offArgs = 0, 16
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(v uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v} }
	var code []unix.SockFilter
	for _, word := range words {
		r, err := parse(word)
		if err != nil {
			return nil, err
		}
		tail := []unix.SockFilter{ret(unix.SECCOMP_RET_ERRNO | uint32(r.errno))}
		if r.look {
			tail = []unix.SockFilter{
				load(offArgs + 8*r.arg), // both machines are little endian
				{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: r.mask},
				{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.value, Jf: 1},
				tail[0],
			}
		}
		past := uint8(len(tail))
		code = append(code, load(offNumber),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: r.first, Jf: past + 1},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: r.last, Jt: past})
		code = append(code, tail...)
	}
	return append(code, ret(unix.SECCOMP_RET_ALLOW)), nil
}

func install(filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	set := func() unix.Errno {
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
		return errno
	}
	errno := set()
	if errno == unix.EACCES {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("prctl PR_SET_NO_NEW_PRIVS: %w", err)
		}
		errno = set()
	}
	if errno != 0 {
		return fmt.Errorf("seccomp SECCOMP_SET_MODE_FILTER: %w", errno)
	}
	return nil
}
