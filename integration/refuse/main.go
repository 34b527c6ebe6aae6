// Command refuse runs a command whose system calls named before the -- fail
// with an error, as on a host whose kernel or seccomp profile lacks them.
//
//	refuse openat2=ENOSYS clone3=EPERM -- nook run --rm busybox true
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
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calls are the ones that some step of nook has a substitute for.
var calls = map[string]uint32{
	"clone3":            unix.SYS_CLONE3,
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
	"unshare":           unix.SYS_UNSHARE,
}

var errnos = map[string]unix.Errno{
	"EPERM": unix.EPERM, "ENOSYS": unix.ENOSYS, "EINVAL": unix.EINVAL,
	"EACCES": unix.EACCES, "ENOSPC": unix.ENOSPC, "EOPNOTSUPP": unix.EOPNOTSUPP,
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

// program compiles "openat2=ENOSYS" and the like.
func program(rules []string) ([]unix.SockFilter, error) {
	const offNumber = 0 // in struct seccomp_data
	f := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offNumber}}
	for _, r := range rules {
		call, errno, _ := strings.Cut(r, "=")
		number, ok := calls[call]
		if !ok {
			return nil, fmt.Errorf("no call %q in the table", call)
		}
		code, ok := errnos[errno]
		if !ok {
			return nil, fmt.Errorf("no error %q in the table", errno)
		}
		f = append(f,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(code)})
	}
	return append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}), nil
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
