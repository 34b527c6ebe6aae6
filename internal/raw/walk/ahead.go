package walk

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Ahead is a container's monitor that was forked before its program is known:
// while a command's packages are still initialised, others write its id maps.
// It shares our memory and our descriptors, and waits.
type Ahead struct {
	*Shared
	// Pid is the monitor's, and Stack what it runs on.
	Pid   int
	Stack *Stack
	// Tools write its id maps. What they say can be read from Said.
	Tools []Tool
	Said  int

	free uintptr // memory that the children see too
}

// Tool is a running newuidmap or newgidmap.
type Tool struct {
	Pid  int
	Path string
	Args []string // the first one is its name
}

// Shared is what the monitor sees of it.
type Shared struct {
	// Own becomes 1 when it has descriptors of its own.
	Own uint64
	// Program is where it waits for its program.
	Program Parking
}

// Begin forks the monitor. nil: this host doesn't allow it.
//
// A command that is killed takes it along (PR_SET_PDEATHSIG): Begin must be
// called by a thread that lives as long as the process, as the one that
// initialises packages does.
func Begin() *Ahead {
	const size = 64 << 10 // a list, three stacks, and two command lines
	mem, _, e := syscall.RawSyscall6(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_SHARED|syscall.MAP_ANON, None, 0)
	if e != 0 {
		return nil
	}
	a := &Ahead{Said: -1, free: mem}
	a.Shared = (*Shared)(Pointer(a.alloc(unsafe.Sizeof(Shared{}))))
	a.Program.Prepare()
	a.Stack = a.stack()
	list := a.list(
		call(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL)),
		Op{Kind: KindPark, Save: -1, Args: [6]uintptr{uintptr(unsafe.Pointer(&a.Program))}},
	)
	pid, e := Share(syscall.CLONE_NEWUSER|syscall.CLONE_NEWPID|syscall.CLONE_FILES, a.Stack, list, None)
	if e != 0 {
		return nil
	}
	a.Pid = int(pid)
	return a
}

// Run starts a tool. say is its standard error.
func (a *Ahead) Run(path string, args []string, say int) {
	const envp = 1 // an environment costs it more files than all the rest
	argv := a.alloc(uintptr(len(args)+1+envp) * unsafe.Sizeof(uintptr(0)))
	for i, arg := range args {
		*(*uintptr)(Pointer(argv + uintptr(i)*unsafe.Sizeof(argv))) = a.text(arg)
	}
	none := argv + uintptr(len(args))*unsafe.Sizeof(argv)
	exec := call(syscall.SYS_EXECVE, a.text(path), argv, none)
	exec.Kind = KindExec
	list := a.list(call(syscall.SYS_DUP3, uintptr(say), 2), exec, Op{Kind: KindFail, Save: -1, Last: true})
	if pid, e := Share(0, a.stack(), list, None); e == 0 {
		a.Tools = append(a.Tools, Tool{int(pid), path, args})
	}
}

func (a *Ahead) alloc(n uintptr) uintptr {
	const align = uintptr(Align)
	at := a.free
	a.free += (n + align - 1) &^ (align - 1)
	return at
}

func (a *Ahead) stack() *Stack { return (*Stack)(Pointer(a.alloc(uintptr(Size)))) }

func (a *Ahead) list(ops ...Op) uintptr {
	at := a.alloc(unsafe.Sizeof(Op{}) * uintptr(len(ops)))
	for i := range ops {
		*(*Op)(Pointer(at + uintptr(i)*unsafe.Sizeof(Op{}))) = ops[i]
	}
	return at
}

// text copies s; the memory behind it is zero.
func (a *Ahead) text(s string) uintptr {
	at := a.alloc(uintptr(len(s) + 1))
	for i := range len(s) {
		*(*byte)(Pointer(at + uintptr(i))) = s[i]
	}
	return at
}

func call(nr uintptr, args ...uintptr) Op {
	o := Op{NR: nr, Save: -1}
	copy(o.Args[:], args)
	return o
}

// begun is what internal/early began, until it is taken.
var begun atomic.Pointer[Ahead]

// Offer leaves an Ahead to whoever starts the first container.
func Offer(a *Ahead) { begun.Store(a) }

// Take takes what was offered; nil: nothing, or others were first.
func Take() *Ahead { return begun.Swap(nil) }
