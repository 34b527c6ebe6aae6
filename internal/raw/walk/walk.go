// Package walk is what a child of internal/raw runs: it walks a list of steps,
// prepared beforehand by its parent, and calls nothing but system calls. It
// imports next to nothing, so that internal/early can use it before the rest of
// the program is initialised.
package walk

import (
	"syscall"
	"unsafe"
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

// Share makes the child with clone3(2). It has the parent's memory itself; but
// unlike with vfork(2) nobody waits, as the child has a stack of its own and
// touches nothing but that and the arena. It must not run one of Go's signal
// handlers, so only a kernel that clears them in the call (CLONE_CLEAR_SIGHAND,
// Linux 5.5) will do.
//
//go:noinline
//go:norace
func Share(flags uintptr, s *Stack, first, report uintptr) (pid uintptr, errno syscall.Errno) {
	at := uintptr(unsafe.Pointer(s))
	s.fill(first, report)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigBlock, 0, at+unsafe.Offsetof(s.mask), 8, 0, 0)
	s.args = cloneArgs{
		flags:  uint64(flags) | syscall.CLONE_VM | syscall.CLONE_CHILD_CLEARTID | syscall.CLONE_CLEAR_SIGHAND,
		signal: uint64(syscall.SIGCHLD), childTID: uint64(at + unsafe.Offsetof(s.living)),
		stack: uint64(at), stackSize: uint64(unsafe.Offsetof(s.frame)),
	}
	s.living = 1
	beforeFork()
	pid, e := cloneOnto(sysClone3, at+unsafe.Offsetof(s.args), unsafe.Sizeof(s.args), 0, 0, 0)
	afterFork()
	if e != 0 {
		s.living = 0
	}
	return pid, syscall.Errno(e)
}

// shareAgain is Share in a child that shares already: no handler is left, and
// clone(2) will do.
//
//go:nosplit
//go:norace
//go:nocheckptr
func shareAgain(o *Op, report uintptr) (pid uintptr, errno syscall.Errno) {
	at := o.Stack
	s := (*Stack)(Pointer(at))
	s.fill(o.Child, report)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigBlock, 0, at+unsafe.Offsetof(s.mask), 8, 0, 0)
	s.living = 1
	// Where the id's address stands differs between machines; the other place
	// is not looked at without CLONE_SETTLS.
	living := at + unsafe.Offsetof(s.living)
	pid, e := cloneOnto(syscall.SYS_CLONE, o.Args[0]|syscall.CLONE_VM|syscall.CLONE_CHILD_CLEARTID,
		at+unsafe.Offsetof(s.frame), o.Args[2], living, living)
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
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, mask, 0, 8, 0, 0)
	run(first, report, true)
}

// Fork makes the child where Share can't or must not: its memory is a copy but
// for the arena.
//
//go:noinline
//go:norace
func Fork(flags, first, report uintptr) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
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

// run walks the list and never returns. After Fork: no allocation, no stack
// growth (the runtime's stack guard traps it), no locks, no write of a Go
// pointer. Everything it calls is nosplit.
//
//go:nosplit
//go:norace
//go:nocheckptr
func run(first, report uintptr, shares bool) {
	var reg [Registers]uint32 // descriptors and pids
	var args [6]uintptr
	var denied uintptr // the error to report when no candidate of a PATH ran
	var deniedStep uint32
	at := first
	for {
		o := (*Op)(Pointer(at))
		for i := range args {
			args[i] = o.Args[i]
			if o.Regs&(1<<i) != 0 {
				args[i] = uintptr(reg[args[i]%Registers])
			}
		}
		var r uintptr
		var e syscall.Errno
		switch o.Kind {
		case KindLate:
			at = *(*uintptr)(Pointer(o.Child))
			continue
		case KindFail:
			if denied == 0 {
				denied, deniedStep = uintptr(syscall.ENOENT), o.Step
			}
			fail(report, deniedStep, denied)
		case KindSame, KindDiffers:
			if same := *(*uintptr)(Pointer(args[0])) == args[1]; same != (o.Kind == KindSame) {
				e = syscall.EAGAIN
			}
		case KindDescriptor:
			if r = uintptr(*(*uint32)(Pointer(args[0]))); r == None {
				e = syscall.ECANCELED
			}
		case KindWait:
			e = wait(o, &args)
		case KindExec:
			switch failed := execute(o, &args); failed {
			case syscall.ENOENT, syscall.ENOTDIR:
			case syscall.EACCES:
				denied, deniedStep = uintptr(failed), o.Step
			default:
				fail(report, o.Step, uintptr(failed))
			}
		case KindCloseAll:
			closeAllBut(report, &args)
		case KindStore:
			*(*uintptr)(Pointer(args[0])) = args[1]
		case KindPark:
			p := (*Parking)(Pointer(args[0]))
			p.wait()
			at, report = p.first, p.report
			continue
		case KindFork:
			if shares {
				r, e = shareAgain(o, report)
				break
			}
			if r, _, e = syscall.RawSyscall6(o.NR, args[0], args[1], args[2], args[3], args[4], args[5]); e == 0 && r == 0 {
				at = o.Child
				continue
			}
		default:
			r, _, e = syscall.RawSyscall6(o.NR, args[0], args[1], args[2], args[3], args[4], args[5])
		}
		skip := uintptr(0)
		switch {
		case e == 0:
			skip = uintptr(o.OnOK)
		case o.OrElse:
			skip = uintptr(o.OnErr)
		case o.Quiet || ignored(o, e):
		default:
			fail(report, o.Step, uintptr(e))
		}
		if e == 0 && o.Save >= 0 {
			reg[o.Save&(Registers-1)] = uint32(r)
		}
		if o.Last && skip == 0 {
			exit()
		}
		at += (skip + 1) * unsafe.Sizeof(Op{})
	}
}

// wait reads a byte.
//
//go:nosplit
//go:norace
func wait(o *Op, args *[6]uintptr) syscall.Errno {
	for {
		r, _, e := syscall.RawSyscall6(o.NR, args[0], args[1], 1, 0, 0, 0)
		switch {
		case e == syscall.EINTR:
		case e == 0 && r == 0:
			return syscall.ECANCELED
		default:
			return e
		}
	}
}

// execute tries one candidate of a PATH. After ENOENT, ENOTDIR and EACCES
// another may follow.
//
//go:nosplit
//go:norace
func execute(o *Op, args *[6]uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall6(o.NR, args[0], args[1], args[2], 0, 0, 0)
	if e == syscall.ENOENT || e == syscall.ENOTDIR {
		_, _, missing := syscall.RawSyscall6(syscall.SYS_FACCESSAT, atFDCWD, args[0], 0, 0, 0, 0)
		if missing == 0 {
			return ErrInterpreter
		}
	}
	return e
}

// atFDCWD is AT_FDCWD as a system call's argument.
const atFDCWD = ^uintptr(99)

//go:nosplit
//go:norace
func ignored(o *Op, e syscall.Errno) bool {
	return uint16(e) == o.Ignore[0] || uint16(e) == o.Ignore[1] ||
		uint16(e) == o.Ignore[2] || uint16(e) == o.Ignore[3]
}

//go:nosplit
//go:norace
func fail(report uintptr, step uint32, errno uintptr) {
	var b [ReportSize]byte
	b[0], b[1], b[2], b[3] = byte(step), byte(step>>8), byte(step>>16), byte(step>>24)
	b[4], b[5], b[6], b[7] = byte(errno), byte(errno>>8), byte(errno>>16), byte(errno>>24)
	syscall.RawSyscall6(syscall.SYS_WRITE, report, uintptr(unsafe.Pointer(&b)), ReportSize, 0, 0, 0)
	exit()
}

//go:nosplit
//go:norace
func exit() {
	for {
		syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, ExitStatus, 0, 0, 0, 0, 0)
	}
}

// ReportSize is how many bytes a child writes that met an error: the number of its
// step and the errno, little endian.
const ReportSize = 8

// ExitStatus of a child that could not finish its program.
const ExitStatus = 125

// Pointer turns an address of the arena, which is not Go memory, into a
// pointer without the arithmetic that vet looks for.
//
//go:nosplit
func Pointer(a uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&a)) }

// closeAllBut closes the ranges between the kept numbers, or, where args[Kept]
// says how many there can be, one descriptor after the other.
//
//go:nosplit
//go:norace
func closeAllBut(report uintptr, args *[6]uintptr) {
	for low := args[Kept+1]; low < None; {
		next := None
		if report >= low {
			next = report
		}
		for i := range Kept {
			if args[i] >= low && args[i] < next {
				next = args[i]
			}
		}
		if args[Kept] == 0 {
			if next > low {
				syscall.RawSyscall6(sysCloseRange, low, next-1, 0, 0, 0, 0)
			}
		} else {
			for fd := low; fd < next && fd < args[Kept]; fd++ {
				syscall.RawSyscall6(syscall.SYS_CLOSE, fd, 0, 0, 0, 0, 0)
			}
		}
		low = next + 1
	}
}
