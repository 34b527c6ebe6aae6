package walk

import (
	"sync/atomic"
	"unsafe"
)

// Stack is where a child runs that shares our memory. It lies outside of the Go heap.
// All that such a child calls is nosplit, which the linker holds to less than
// 800 bytes.
type Stack struct {
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

// fill writes what the child finds. A word is left out: the return address of
// some machines.
//
//go:nosplit
//go:norace
func (s *Stack) fill(first, report uintptr) {
	s.frame[1], s.frame[2], s.frame[3] = first, report, uintptr(unsafe.Pointer(&s.mask))
}

// Size is how many bytes a Stack takes, and Align what its address has to be a
// multiple of.
const (
	Size  = int(unsafe.Sizeof(Stack{}))
	Align = 16
)

// Living tells whether the child runs steps still.
func (s *Stack) Living() bool { return atomic.LoadUint32(&s.living) != 0 }
