// Package raw forks a child that runs a list of system calls, prepared
// beforehand, and nothing else: no Go start, no scheduler, no allocation.
//
//	p := raw.New(raw.DefaultSize)
//	p.Call("set the hostname", unix.SYS_SETHOSTNAME, "box", 3)
//	p.Exec("run /bin/true", "/bin/true", []string{"true"}, nil)
//	pid, err := p.Start(unix.CLONE_NEWUSER | unix.CLONE_NEWUTS)
//
// A Go program has many threads, so it can't setns(2) into a user namespace,
// and a second start of a Go program costs more than all the system calls of a
// container's set-up together. A forked child of a Go program may do neither
// of what makes Go Go, but it may make system calls, as os/exec does between
// fork and exec. This package widens that gap: the calls are data, built and
// checked by ordinary code in the parent; the child only walks the list. See
// docs/design/raw-fork.md.
//
// The list lives in shared memory outside the Go heap, so that the parent can
// still write a later part of it while the child runs the first (Late).
//
// Not for anything that needs a decision of more than "on this error, that
// step": decide in the parent, before.
package raw

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"nook/internal/raw/walk"
)

// DefaultSize is enough for some hundreds of steps with short strings, in
// bytes. Pages that are not written cost nothing.
const DefaultSize = 1 << 20

// usualSteps is room for the steps of a list, which would otherwise be copied
// again and again as it grows.
const usualSteps = 128

// Reg is a register of the Child: the place of a call's result, usable as an
// argument of later calls. A forked child of the child begins with a copy.
type Reg int

// Addr is an address of memory in the program's arena.
type Addr uintptr

// arena is memory that parent and child share.
type arena struct {
	mem  []byte
	used int
	err  error
	// stacks are those of children that may share our memory.
	stacks []*walk.Stack
}

// Program is a list of steps. It is built by one goroutine and started once.
type Program struct {
	arena  *arena
	ops    []walk.Op
	names  *[]string // step number to name, shared by all parts
	sealed bool
	next   Reg
	shares bool
}

// New makes a program whose steps and strings take at most size bytes.
func New(size int) *Program {
	a := &arena{}
	a.mem, a.err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if a.err != nil {
		a.err = fmt.Errorf("mmap %d bytes for a program: %w", size, a.err)
	}
	names := make([]string, 0, 4*usualSteps)
	return &Program{arena: a, names: &names}
}

// Part makes another list in the same memory: the program of a forked child,
// or a late part.
func (p *Program) Part() *Program {
	return &Program{arena: p.arena, names: p.names, next: p.next}
}

// Close gives the memory back, unless a child still walks a list in it: then
// it stays until this process ends.
func (p *Program) Close() {
	if p.arena.mem == nil {
		return
	}
	if !p.arena.walked() {
		_ = unix.Munmap(p.arena.mem)
	}
	p.arena.mem = nil
}

func (a *arena) alloc(n int) []byte {
	const align = 8
	n = (n + align - 1) &^ (align - 1)
	if a.err == nil && a.used+n > len(a.mem) {
		a.err = fmt.Errorf("program of more than %d bytes: %w", len(a.mem), unix.E2BIG)
	}
	if a.err != nil {
		return make([]byte, n)
	}
	b := a.mem[a.used : a.used+n : a.used+n]
	a.used += n
	return b
}

func addressOf(b []byte) Addr { return Addr(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// Bytes copies b into the program's memory.
func (p *Program) Bytes(b []byte) Addr {
	m := p.arena.alloc(len(b))
	copy(m, b)
	return addressOf(m)
}

// Space reserves n zero bytes.
func (p *Program) Space(n int) Addr { return addressOf(p.arena.alloc(n)) }

// Put copies b to an address that Space or Bytes gave.
func (p *Program) Put(at Addr, b []byte) {
	copy(unsafe.Slice((*byte)(walk.Pointer(uintptr(at))), len(b)), b)
}

// String copies s and a NUL into the program's memory.
func (p *Program) String(s string) Addr {
	m := p.arena.alloc(len(s) + 1)
	copy(m, s)
	m[len(s)] = 0
	return addressOf(m)
}

// Strings makes the NULL-terminated array of pointers that execve(2) takes.
func (p *Program) Strings(list []string) Addr {
	words := make([]uintptr, len(list)+1)
	for i, s := range list {
		words[i] = uintptr(p.String(s))
	}
	return p.Words(words...)
}

// Words copies machine words into the program's memory.
func (p *Program) Words(words ...uintptr) Addr {
	m := p.arena.alloc(len(words) * int(unsafe.Sizeof(uintptr(0))))
	for i, w := range words {
		*(*uintptr)(unsafe.Pointer(&m[i*int(unsafe.Sizeof(w))])) = w
	}
	return addressOf(m)
}

// Words32 copies 32 bit values into the program's memory.
func (p *Program) Words32(words ...uint32) Addr {
	m := p.arena.alloc(len(words) * 4)
	for i, w := range words {
		*(*uint32)(unsafe.Pointer(&m[i*4])) = w
	}
	return addressOf(m)
}

// Step is one step under construction.
type Step struct {
	p *Program
	i int
}

// Call adds a system call. An argument is an int, a uintptr, an Addr, a Reg,
// a string (passed as a pointer to a C string) or a []byte (a pointer to a
// copy). A call that returns an error ends the child with a report that bears
// name, unless Ignore or Or say otherwise.
func (p *Program) Call(name string, nr uintptr, args ...any) *Step {
	o := walk.Op{NR: nr, Save: -1, Step: p.name(name)}
	for i, a := range args {
		switch v := a.(type) {
		case int:
			o.Args[i] = uintptr(v)
		case uintptr:
			o.Args[i] = v
		case Addr:
			o.Args[i] = uintptr(v)
		case Reg:
			o.Args[i] = uintptr(v)
			o.Regs |= 1 << i
		case string:
			o.Args[i] = uintptr(p.String(v))
		case []byte:
			o.Args[i] = uintptr(p.Bytes(v))
		default:
			if p.arena.err == nil {
				p.arena.err = fmt.Errorf("step %q: argument %d is a %T", name, i, a)
			}
		}
	}
	return p.add(o)
}

func (p *Program) name(s string) uint32 {
	*p.names = append(*p.names, s)
	return uint32(len(*p.names) - 1)
}

func (p *Program) add(o walk.Op) *Step {
	if p.ops == nil {
		p.ops = make([]walk.Op, 0, usualSteps)
	}
	p.ops = append(p.ops, o)
	return &Step{p, len(p.ops) - 1}
}

// Ignore lets the child go on after these errors.
func (s *Step) Ignore(errs ...unix.Errno) *Step {
	copy(s.p.ops[s.i].Ignore[:], toUint16(errs))
	return s
}

func toUint16(errs []unix.Errno) []uint16 {
	out := make([]uint16, len(errs))
	for i, e := range errs {
		out[i] = uint16(e)
	}
	return out
}

// IgnoreAll lets the child go on after any error.
func (s *Step) IgnoreAll() *Step {
	s.p.ops[s.i].Quiet = true
	return s
}

// Save keeps the result in a new register.
func (s *Step) Save() Reg {
	r := s.p.Register()
	s.SaveTo(r)
	return r
}

// SaveTo keeps the result in a register that is used again.
func (s *Step) SaveTo(r Reg) { s.p.ops[s.i].Save = int8(r) }

// Register takes a register for SaveTo.
func (p *Program) Register() Reg {
	r := p.next
	p.next++
	if r >= walk.Registers && p.arena.err == nil {
		p.arena.err = fmt.Errorf("more than %d walk.Registers", walk.Registers)
	}
	return r
}

// Or adds another way: the steps that otherwise adds run only when the steps
// that try added met an error, from the first that met one; what try did until
// then stays done.
func (p *Program) Or(try, otherwise func()) {
	first := len(p.ops)
	try()
	end := len(p.ops)
	otherwise()
	skip := int32(len(p.ops) - end)
	for i := first; i < end; i++ {
		p.ops[i].OrElse = true
		p.ops[i].OnErr = int32(end - i - 1)
	}
	if end > first {
		p.ops[end-1].OnOK = skip
	}
}

// Fork adds a clone(2) with these flags (SIGCHLD is added); the child runs
// part, the forking process goes on. The pid is the step's result.
func (p *Program) Fork(name string, flags uintptr, part *Program) *Step {
	return p.add(walk.Op{Kind: walk.KindFork, NR: unix.SYS_CLONE, Save: -1, Step: p.name(name),
		Args: [6]uintptr{flags | uintptr(unix.SIGCHLD)}, Child: part.seal(), Stack: uintptr(unsafe.Pointer(p.arena.stack()))})
}

// ForkTelling is Fork with CLONE_PARENT_SETTID among the flags: the pid is
// also written to address, which the parent of the whole program can read.
func (p *Program) ForkTelling(name string, flags uintptr, address Addr, part *Program) *Step {
	s := p.Fork(name, flags, part)
	p.ops[s.i].Args[2] = uintptr(address)
	return s
}

// Int32 is the word at an address that Space gave, as long as the program is
// not closed.
func (p *Program) Int32(at Addr) *int32 { return (*int32)(walk.Pointer(uintptr(at))) }

// Wait adds a read(2) of one byte. The end of the file is reported as
// ECANCELED: who should have written is gone.
func (p *Program) Wait(name string, fd int) *Step {
	return p.add(walk.Op{Kind: walk.KindWait, NR: unix.SYS_READ, Save: -1, Step: p.name(name),
		Args: [6]uintptr{uintptr(fd), uintptr(p.Space(1)), 1}})
}

// Same goes on only if the word at address holds value, Differs only if it
// doesn't. Otherwise that is an error as of a system call, EAGAIN: for use in
// the first way of Or.
func (p *Program) Same(name string, address Addr, value uint64) {
	p.compare(walk.KindSame, name, address, value)
}

// Differs is the opposite of Same.
func (p *Program) Differs(name string, address Addr, value uint64) {
	p.compare(walk.KindDiffers, name, address, value)
}

func (p *Program) compare(k walk.Kind, name string, address Addr, value uint64) {
	p.add(walk.Op{Kind: k, Save: -1, Step: p.name(name), Args: [6]uintptr{uintptr(address), uintptr(value)}})
}

// Late is a place in a program whose steps the parent writes while the child
// already runs. The child must be held by a Wait before it.
type Late struct {
	slot Addr
	part *Program
}

// Late adds the place; it must be the last step of its list.
func (p *Program) Late(name string) *Late {
	slot := p.Words(0)
	p.add(walk.Op{Kind: walk.KindLate, Save: -1, Step: p.name(name), Child: uintptr(slot)})
	part := p.Part()
	return &Late{slot, part}
}

// Part is the list to fill.
func (l *Late) Part() *Program { return l.part }

// Seal makes the late part visible to the child. The child must be let go, by
// what its Wait reads, only after it.
func (l *Late) Seal() error {
	first := l.part.seal()
	if err := l.part.arena.err; err != nil {
		return err
	}
	*(*uintptr)(walk.Pointer(uintptr(l.slot))) = first
	return nil
}

// Exec adds an execve(2). When path isn't there the child goes on to the next
// step, which may be the next candidate of a PATH; a permission that is
// missing is remembered and goes on too. Any other error is reported. After
// the last candidate stands Fail.
func (p *Program) Exec(name, path string, argv, envp Addr) {
	p.add(walk.Op{Kind: walk.KindExec, NR: unix.SYS_EXECVE, Save: -1, Step: p.name(name),
		Args: [6]uintptr{uintptr(p.String(path)), uintptr(argv), uintptr(envp)}})
}

// Fail adds the end: report the remembered error, or ENOENT.
func (p *Program) Fail(name string) {
	p.add(walk.Op{Kind: walk.KindFail, Save: -1, Step: p.name(name)})
}

// seal copies the list to the program's memory, after which it can't grow.
func (p *Program) seal() uintptr {
	if len(p.ops) == 0 {
		p.Fail("nothing to do")
	}
	p.ops[len(p.ops)-1].Last = true
	size := int(unsafe.Sizeof(walk.Op{}))
	m := p.arena.alloc(size * len(p.ops))
	for i := range p.ops {
		*(*walk.Op)(unsafe.Pointer(&m[i*size])) = p.ops[i]
	}
	p.sealed = true
	return uintptr(addressOf(m))
}

// Share lets the child, and its children, use our own memory until they
// execute something, where the host allows it: to copy a Go program's page
// tables, and then on both sides each page that is written, costs more than
// all of a container's mounts.
//
// It is not for a child that others could trace, as one that joins a container:
// they would have our memory. A child that changes its user or group makes our
// memory undumpable and our files of /proc root's, and must take that back
// (KeepDumpable); where it is undumpable already, the child gets a copy.
func (p *Program) Share() {
	on, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	p.shares = err == nil && on == 1 && !walk.RaceDetector
}

// KeepDumpable adds what a change of user or group asks for: see Share. p is a
// late part of program.
func (p *Program) KeepDumpable(program *Program) {
	if program.shares {
		p.Call("keep the memory dumpable", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	}
}

// Start forks a child in the namespaces of flags (CLONE_NEW*) and lets it run
// the program. A step that met an error writes a Report to the descriptor
// report and ends the child with status 125. The caller waits for the child.
func (p *Program) Start(flags uintptr, report int) (pid int, err error) {
	first := p.seal()
	if p.arena.err != nil {
		return 0, p.arena.err
	}
	// No goroutine may open a descriptor without O_CLOEXEC meanwhile.
	syscall.ForkLock.Lock()
	child, errno := p.fork(flags, first, uintptr(report))
	syscall.ForkLock.Unlock()
	if errno != 0 {
		return 0, fmt.Errorf("clone: %w", errno)
	}
	return int(child), nil
}

// fork makes the child in the way that the host allows.
func (p *Program) fork(flags, first, report uintptr) (pid uintptr, errno syscall.Errno) {
	if p.shares {
		s := p.arena.stack()
		if p.arena.err != nil {
			return 0, unix.E2BIG
		}
		switch pid, errno = walk.Share(flags, s, first, report); errno {
		case unix.ENOSYS, unix.EPERM, unix.EINVAL:
		default:
			return pid, errno
		}
	}
	return walk.Fork(flags|uintptr(unix.SIGCHLD), first, report)
}

// Name is what step i of the program is called, in all of its parts.
func (p *Program) Name(i uint32) string {
	if int(i) >= len(*p.names) {
		return fmt.Sprintf("step %d", i)
	}
	return (*p.names)[i]
}
