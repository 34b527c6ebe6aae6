package raw

import (
	"sync/atomic"
	"unsafe"
)

// stack is where a child runs that shares our memory. It lies in the arena.
// All that such a child calls is nosplit, which the linker holds to less than
// 800 bytes.
type stack struct {
	room  [2048]byte
	frame [4]uintptr // what the child finds: see cloneOnto
	mask  uint64     // the signal mask that it is to have
	// living is not 0 while the child runs steps: the kernel resets it when it
	// ends or executes something (CLONE_CHILD_CLEARTID).
	living uint32
	args   cloneArgs
}

// cloneArgs is struct clone_args of clone3(2), in its first version.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, signal, stack, stackSize, tls uint64
}

// stack makes one for each fork.
func (a *arena) stack() *stack {
	const align = 16 // as both machines want it
	m := a.alloc(int(unsafe.Sizeof(stack{})) + align)
	if a.err != nil {
		return nil
	}
	at := (addressOf(m) + align - 1) &^ (align - 1)
	s := (*stack)(pointer(uintptr(at)))
	a.stacks = append(a.stacks, s)
	return s
}

// walked tells whether a child runs steps still. The list is in the order of
// parts before wholes; the one who forks must be looked at before the forked.
func (a *arena) walked() bool {
	for i := len(a.stacks) - 1; i >= 0; i-- {
		if atomic.LoadUint32(&a.stacks[i].living) != 0 {
			return true
		}
	}
	return false
}

// fill writes what the child finds. A word is left out: the return address of
// some machines.
//
//go:nosplit
//go:norace
func (s *stack) fill(first, report uintptr) {
	s.frame[1], s.frame[2], s.frame[3] = first, report, uintptr(unsafe.Pointer(&s.mask))
}
