package walk

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Parking is where a child that shares our memory waits for its list
// (KindPark). One that gets none in time ends.
type Parking struct {
	released      uint32 // a futex: 1 when the list is there
	first, report uintptr
	timeout       syscall.Timespec
}

// patience is how long a child waits, in seconds. Whom it waits for is a command
// on its way to what it does first.
const patience = 10

// Prepare is to be called before the child is made.
func (p *Parking) Prepare() { p.timeout = syscall.Timespec{Sec: patience} }

// Release lets the child go on with the list at first. It writes its Report to
// report.
func (p *Parking) Release(first, report uintptr) {
	p.first, p.report = first, report
	atomic.StoreUint32(&p.released, 1)
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&p.released)), futexWake, 1, 0, 0, 0)
}

// futex(2).
const (
	futexWait = 0
	futexWake = 1
)

// wait returns when the list is there, or ends the child: it may never be.
//
//go:nosplit
//go:norace
func (p *Parking) wait() {
	for atomic.LoadUint32(&p.released) == 0 {
		_, _, e := syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&p.released)), futexWait, 0, uintptr(unsafe.Pointer(&p.timeout)), 0, 0)
		if e != 0 && e != syscall.EAGAIN && e != syscall.EINTR {
			exit()
		}
	}
}
