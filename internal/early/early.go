// Package early is what the command nook does before its packages are
// initialised, which takes longer than all else that it does before a container
// begins: for `nook run` with mapped ids it forks the container's monitor and
// lets newuidmap(1) and newgidmap(1) write its maps meanwhile. engine takes it
// when it knows what it is to run, or ends it.
//
// It imports next to nothing, as a package is initialised once what it imports
// is; and it is imported for its effect, by cmd/nook alone: a program that uses
// engine as a library gets no children that it did not ask for.
package early

import (
	"syscall"

	"nook/internal/raw/walk"
)

func init() {
	if walk.RaceDetector || !runs(commandLine()) || !dumpable() {
		return
	}
	uids, gids := subids()
	if uids == nil || gids == nil {
		return
	}
	a := walk.Begin()
	if a == nil {
		return
	}
	walk.Offer(a)
	writeMaps(a, uids, gids)
}

// dumpable: see raw.Program.Share.
func dumpable() bool {
	on, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, syscall.PR_GET_DUMPABLE, 0, 0, 0, 0, 0)
	return e == 0 && on == 1
}

// commandLine reads proc_pid_cmdline(5), its beginning: os.Args is made later.
func commandLine() []byte {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	const enough = 4096
	line := make([]byte, enough)
	n, err := syscall.Read(fd, line)
	_ = syscall.Close(fd)
	if err != nil {
		return nil
	}
	return line[:n]
}

// runs tells whether a command line is that of nook run, with more than a
// single id. It errs for strange ones: then the monitor is of no use, and ends.
func runs(line []byte) bool {
	own, rest := cut(line)
	if len(own) >= len("nook-") && string(own[:len("nook-")]) == "nook-" { // no command, but a process of a container's
		return false
	}
	ids, _ := syscall.Getenv("NOOK_IDS")
	for len(rest) > 0 {
		var arg, value []byte
		arg, rest = cut(rest)
		switch {
		case string(arg) == "--root":
			_, rest = cut(rest)
		case string(arg) == "--ids":
			value, rest = cut(rest)
			ids = string(value)
		case len(arg) > len("--ids=") && string(arg[:len("--ids=")]) == "--ids=":
			ids = string(arg[len("--ids="):])
		case len(arg) > 0 && arg[0] == '-', string(arg) == "container":
		default:
			return ids != "single" && string(arg) == "run"
		}
	}
	return false
}

// cut takes the first argument off.
func cut(line []byte) (arg, rest []byte) {
	for i, c := range line {
		if c == 0 {
			return line[:i], line[i+1:]
		}
	}
	return line, nil
}
