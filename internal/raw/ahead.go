package raw

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nook/internal/raw/walk"
)

// Ahead is a container's monitor that was forked before its program was known,
// by internal/early, and whose id maps are being written.
type Ahead struct{ *walk.Ahead }

// TakeAhead takes what was begun, if its id maps are written by these tools,
// each a path and its arguments, of which pid is one. nil: there is none. What
// was begun otherwise ends.
func TakeAhead(tools func(pid int) [][]string) *Ahead {
	taken := walk.Take()
	if taken == nil {
		return nil
	}
	a := &Ahead{taken}
	wanted := tools(a.Pid)
	fits := a.Stack.Living() && len(wanted) == len(a.Tools)
	for i := 0; fits && i < len(wanted); i++ {
		fits = wanted[i][0] == a.Tools[i].Path && slices.Equal(wanted[i][1:], a.Tools[i].Args)
	}
	if !fits {
		a.End()
		return nil
	}
	return a
}

// End ends a monitor that was not started. nil is none.
func (a *Ahead) End() {
	if a == nil {
		return
	}
	pids := []int{a.Pid}
	for _, t := range a.Tools {
		pids = append(pids, t.Pid)
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	_ = unix.Close(a.Said)
}

// OwnDescriptors adds what the monitor has to begin with: until then its
// descriptors are its parent's, which waits for it (Wait) before it closes any.
func (a *Ahead) OwnDescriptors(p *Program) {
	p.Call("have descriptors of its own", unix.SYS_UNSHARE, unix.CLONE_FILES)
	p.add(walk.Op{Kind: walk.KindStore, Save: -1, Step: p.name("tell so"), Args: [6]uintptr{uintptr(unsafe.Pointer(&a.Own)), 1}})
}

// Outlive adds that the monitor goes on when the command is killed: it has
// another way to notice now.
func (a *Ahead) Outlive(p *Program) {
	p.Call("outlive the command", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
}

// Start gives the monitor its program, in place of Program.Start.
func (a *Ahead) Start(p *Program, report int) (pid int, err error) {
	first := p.seal()
	if p.arena.err != nil {
		return 0, p.arena.err
	}
	p.arena.stacks = append(p.arena.stacks, a.Stack)
	a.Program.Release(first, uintptr(report))
	return a.Pid, nil
}

// Wait waits until the monitor has descriptors of its own, or ended.
func (a *Ahead) Wait() {
	for atomic.LoadUint64(&a.Own) == 0 && a.Stack.Living() {
		time.Sleep(50 * time.Microsecond)
	}
}
