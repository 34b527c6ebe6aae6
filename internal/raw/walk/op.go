package walk

import "math"

// Kind says what a step does.
type Kind uint8

// The kinds of steps. All but KindCall are about more than one system call, or
// about none.
const (
	KindCall Kind = iota
	KindFork
	KindExec
	KindWait
	KindLate
	KindFail
	KindSame
	KindDiffers
	KindCloseAll
	KindDescriptor
	KindStore // the word at Args[0] becomes Args[1]
	KindPark  // wait to be given a list: Args[0] is the address of a Parking
)

// Registers is how many a child has, of 32 bits each.
const Registers = 32

// Kept is how many numbers KindCloseAll takes in Args. Behind them stand how many
// descriptors there can be where close_range(2) is refused, else 0, and the
// lowest number to close.
const Kept = 4

// None is a number that no descriptor has.
const None = uintptr(math.MaxUint32)

// Op is one step as the child reads it. It holds no Go pointer.
type Op struct {
	NR     uintptr
	Args   [6]uintptr
	Child  uintptr // KindFork: first op of the child; KindLate: address of a word with it
	Stack  uintptr // KindFork: the child's, if it shares our memory
	Ignore [4]uint16
	OnOK   int32 // steps to skip when this one succeeded
	OnErr  int32 // with OrElse: steps to skip when it did not
	Step   uint32
	Kind   Kind
	Regs   uint8 // bit i: Args[i] is a register
	Save   int8  // register of the result, -1: none
	Quiet  bool  // any error is ignored
	OrElse bool  // any error goes on to another way, OnErr steps ahead
	Last   bool  // no step after this one
}

// What package syscall doesn't have. golang.org/x/sys/unix has it, but is
// initialised too late for internal/early.
const (
	sysClone3     = 435
	sysCloseRange = 436
	sigBlock      = 0
	sigSetmask    = 2
)
