package raw

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The three hooks of the runtime around a fork: block signals and forbid stack
// growth; undo it in the parent; in the child reset handlers and the signal
// mask. Go's linker lists them as used from outside (they are marked with a
// push linkname in runtime/proc.go), so this is not held together by
// -checklinkname=0.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// share makes the child with clone3(2). It has the parent's memory itself; but
// unlike with vfork(2) nobody waits, as the child has a stack of its own and
// touches nothing but that and the arena. It must not run one of Go's signal
// handlers, so only a kernel that clears them in the call (CLONE_CLEAR_SIGHAND,
// Linux 5.5) will do.
//
//go:noinline
//go:norace
func share(flags uintptr, s *stack, first, report uintptr) (pid uintptr, errno syscall.Errno) {
	at := uintptr(unsafe.Pointer(s))
	s.fill(first, report)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, at+unsafe.Offsetof(s.mask), 8, 0, 0)
	s.args = cloneArgs{
		flags:  uint64(flags) | unix.CLONE_VM | unix.CLONE_CHILD_CLEARTID | unix.CLONE_CLEAR_SIGHAND,
		signal: uint64(unix.SIGCHLD), childTID: uint64(at + unsafe.Offsetof(s.living)),
		stack: uint64(at), stackSize: uint64(unsafe.Offsetof(s.frame)),
	}
	s.living = 1
	beforeFork()
	pid, e := cloneOnto(unix.SYS_CLONE3, at+unsafe.Offsetof(s.args), unsafe.Sizeof(s.args), 0, 0, 0)
	afterFork()
	if e != 0 {
		s.living = 0
	}
	return pid, syscall.Errno(e)
}

// shareAgain is share in a child that shares already: no handler is left, and
// clone(2) will do.
//
//go:nosplit
//go:norace
//go:nocheckptr
func shareAgain(o *op, report uintptr) (pid uintptr, errno syscall.Errno) {
	at := o.stack
	s := (*stack)(pointer(at))
	s.fill(o.child, report)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, at+unsafe.Offsetof(s.mask), 8, 0, 0)
	s.living = 1
	// Where the id's address stands differs between machines; the other place
	// is not looked at without CLONE_SETTLS.
	living := at + unsafe.Offsetof(s.living)
	pid, e := cloneOnto(unix.SYS_CLONE, o.args[0]|unix.CLONE_VM|unix.CLONE_CHILD_CLEARTID,
		at+unsafe.Offsetof(s.frame), o.args[2], living, living)
	if e != 0 {
		s.living = 0
	}
	return pid, syscall.Errno(e)
}

// cloneOnto makes the system call nr, clone or clone3, whose child begins on
// another stack, where it calls begin.
//
//go:noescape
func cloneOnto(nr, a0, a1, a2, a3, a4 uintptr) (r, errno uintptr)

// begin is where a child that shares our memory begins.
//
//go:nosplit
//go:norace
//go:nocheckptr
func begin(first, report, mask uintptr) { //nolint:unused // by clone_*.s
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, mask, 0, 8, 0, 0)
	run(first, report, true)
}

// fork makes the child where share can't or must not: its memory is a copy but
// for the arena.
//
//go:noinline
//go:norace
func fork(flags, first, report uintptr) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	run(first, report, false)
	return 0, 0
}

// ErrInterpreter in a Report's Errno says that the file to execute is there
// and what it needs to run (its #! line's or ELF interpreter) is not. It lies
// outside of the kernel's errnos.
const ErrInterpreter = 4096

// run walks the list and never returns. After fork: no allocation, no stack
// growth (the runtime's stack guard traps it), no locks, no write of a Go
// pointer. Everything it calls is nosplit.
//
//go:nosplit
//go:norace
//go:nocheckptr
func run(first, report uintptr, shares bool) {
	var reg [registers]uintptr
	var args [6]uintptr
	var denied uintptr // the error to report when no candidate of a PATH ran
	var deniedStep uint32
	at := first
	for {
		o := (*op)(pointer(at))
		for i := range args {
			args[i] = o.args[i]
			if o.regs&(1<<i) != 0 {
				args[i] = reg[args[i]%registers]
			}
		}
		var r uintptr
		var e syscall.Errno
		switch o.kind {
		case kindLate:
			at = *(*uintptr)(pointer(o.child))
			continue
		case kindFail:
			if denied == 0 {
				denied, deniedStep = uintptr(unix.ENOENT), o.step
			}
			fail(report, deniedStep, denied)
		case kindSame, kindDiffers:
			if same := *(*uintptr)(pointer(args[0])) == args[1]; same != (o.kind == kindSame) {
				e = unix.EAGAIN
			}
		case kindDescriptor:
			if r = uintptr(*(*uint32)(pointer(args[0]))); r == none {
				e = unix.ECANCELED
			}
		case kindWait:
			e = wait(o, &args)
		case kindExec:
			if execute(o, &args, report) == unix.EACCES {
				denied, deniedStep = uintptr(unix.EACCES), o.step
			}
		case kindCloseAll:
			closeAllBut(report, &args)
		case kindFork:
			if shares {
				r, e = shareAgain(o, report)
				break
			}
			if r, _, e = syscall.RawSyscall6(o.nr, args[0], args[1], args[2], args[3], args[4], args[5]); e == 0 && r == 0 {
				at = o.child
				continue
			}
		default:
			r, _, e = syscall.RawSyscall6(o.nr, args[0], args[1], args[2], args[3], args[4], args[5])
		}
		skip := uintptr(0)
		switch {
		case e == 0:
			skip = uintptr(o.onOK)
		case o.orElse:
			skip = uintptr(o.onErr)
		case o.quiet || ignored(o, e):
		default:
			fail(report, o.step, uintptr(e))
		}
		if e == 0 && o.save >= 0 {
			reg[o.save&(registers-1)] = r
		}
		if o.last && skip == 0 {
			exit()
		}
		at += (skip + 1) * unsafe.Sizeof(op{})
	}
}

// wait reads a byte.
//
//go:nosplit
//go:norace
func wait(o *op, args *[6]uintptr) syscall.Errno {
	for {
		r, _, e := syscall.RawSyscall6(o.nr, args[0], args[1], 1, 0, 0, 0)
		switch {
		case e == unix.EINTR:
		case e == 0 && r == 0:
			return unix.ECANCELED
		default:
			return e
		}
	}
}

// execute tries one candidate of a PATH. It returns when another may follow.
//
//go:nosplit
//go:norace
func execute(o *op, args *[6]uintptr, report uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall6(o.nr, args[0], args[1], args[2], 0, 0, 0)
	switch e {
	case unix.ENOENT, unix.ENOTDIR:
		_, _, missing := syscall.RawSyscall6(unix.SYS_FACCESSAT, atFDCWD, args[0], 0, 0, 0, 0)
		if missing == 0 {
			fail(report, o.step, ErrInterpreter)
		}
	case unix.EACCES:
	default:
		fail(report, o.step, uintptr(e))
	}
	return e
}

// atFDCWD is AT_FDCWD as a system call's argument.
const atFDCWD = ^uintptr(99)

//go:nosplit
//go:norace
func ignored(o *op, e syscall.Errno) bool {
	return uint16(e) == o.ignore[0] || uint16(e) == o.ignore[1] ||
		uint16(e) == o.ignore[2] || uint16(e) == o.ignore[3]
}

//go:nosplit
//go:norace
func fail(report uintptr, step uint32, errno uintptr) {
	var b [reportSize]byte
	b[0], b[1], b[2], b[3] = byte(step), byte(step>>8), byte(step>>16), byte(step>>24)
	b[4], b[5], b[6], b[7] = byte(errno), byte(errno>>8), byte(errno>>16), byte(errno>>24)
	syscall.RawSyscall6(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(&b)), reportSize, 0, 0, 0)
	exit()
}

//go:nosplit
//go:norace
func exit() {
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, exitStatus, 0, 0, 0, 0, 0)
	}
}

// exitStatus of a child that could not finish its program.
const exitStatus = 125

// pointer turns an address of the arena, which is not Go memory, into a
// pointer without the arithmetic that vet looks for.
//
//go:nosplit
func pointer(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }
