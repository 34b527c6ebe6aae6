// Package pause stops all processes of a container and lets them go on.
// It works in the container's monitor.
//
//	p := pause.New(id, self.Pid)
//	err := p.Pause()
//	err = p.Resume()
//	err = p.Close() // the container ended
//
// Where a group of cgroup2 can be made below our own, its freezer holds the
// container: no process notices. Elsewhere each process is sent SIGSTOP, which its
// parent may notice, as a shell with job control does; and SIGCONT later,
// for which a program may have a handler.
//
//	             parents first ------------------------> pid 1 last
//	Pause   STOP sshd  STOP sh  STOP vi            ...   STOP pid 1
//	Resume  CONT vi    CONT sh  CONT sshd          ...   CONT pid 1
//	             children first -----------------------> pid 1 last
//
// A parent that is stopped before its children, and goes on after them, finds
// none of them stopped (wait(2), WUNTRACED). Pid 1 is sent its signal last, so
// that whoever finds it stopped knows that the others are, but at once: its
// children have not stopped yet then.
package pause

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nook/cgroups"
	"nook/containers/processes"
	"nook/internal/hint"
)

// How a container is paused.
const (
	ByFreezer = "freezer"
	BySignals = "signals"
)

// prefix begins the names of our groups.
const prefix = "nook-pause-"

// The bounds of what could go on for ever.
const (
	maxPasses = 200 // over the list of processes: about 10 s at most when nothing moves
	maxFreeze = 10 * time.Second
	maxSleep  = 50 // milliseconds
)

// Pauser pauses one container. It may be used by several goroutines. A process
// that is started into the container during Pause, or later, is not stopped:
// its caller keeps exec away.
type Pauser struct {
	id      string
	monitor int

	mu      sync.Mutex
	how     string
	freezer *cgroups.Freezer // once it was made
	// stopped are the processes that we stopped: their start by their pid as
	// the monitor counts. Those that had stopped themselves stay so.
	stopped map[int]uint64
	// noFreezer keeps signals to tests on hosts that have both.
	noFreezer bool
}

// New takes the container's id and its monitor's pid as /proc counts
// (containers.Self): that of the calling process.
func New(id string, monitor int) *Pauser { return &Pauser{id: id, monitor: monitor} }

// How is ByFreezer or BySignals while the container is paused, otherwise "".
func (p *Pauser) How() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.how
}

// Pause returns when no process of the container runs. After an error all run
// as before. A container that is paused stays so.
func (p *Pauser) Pause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.how != "" {
		return nil
	}
	if !p.noFreezer {
		err := p.freeze()
		if err == nil {
			p.how = ByFreezer
			return nil
		}
		if errors.Is(err, errStill) {
			return fmt.Errorf("pause container %.12s: %w", p.id, err)
		}
		// What forbids the freezer may come with its use only, as a rule of
		// another group that processes would have to leave.
	}
	if err := p.stop(); err != nil {
		return errors.Join(fmt.Errorf("pause container %.12s: %w", p.id, err), p.cont())
	}
	p.how = BySignals
	return nil
}

// Resume lets all go on that Pause stopped.
func (p *Pauser) Resume() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	switch p.how {
	case ByFreezer:
		err = p.freezer.Thaw()
	case BySignals:
		err = p.cont()
	}
	if err != nil {
		return fmt.Errorf("resume container %.12s: %w", p.id, err)
	}
	p.how = ""
	return nil
}

// Close lets a paused container go on, and removes its group, which must be
// empty by then. The Pauser can be used again, for the container's next
// processes.
func (p *Pauser) Close() error {
	err := p.Resume()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.freezer == nil {
		return err
	}
	err = errors.Join(err, p.freezer.Remove())
	p.freezer = nil
	return err
}

// Sweep removes the groups that killed monitors left, as far as they lie below
// the group of the calling process.
func Sweep() { cgroups.SweepFreezers(prefix) }

// errStill says that processes still run.
var errStill = errors.New("processes still run")

// freeze moves the container into a frozen group: who arrives there stops at
// once, so that what starts processes all the time is soon out of breath.
func (p *Pauser) freeze() error {
	Sweep()
	f, err := cgroups.NewFreezer(prefix + p.id)
	if err != nil {
		return err
	}
	p.freezer = f
	if err = f.Freeze(); err == nil {
		err = p.gather(f)
	}
	if err == nil {
		if err = f.Wait(maxFreeze); err != nil {
			err = fmt.Errorf("%w: %w", errStill, err)
		}
	}
	if err != nil {
		return errors.Join(err, f.Thaw())
	}
	return nil
}

// gather moves every process of the container in, pid 1 last, until a pass
// finds none outside.
func (p *Pauser) gather(f *cgroups.Freezer) error {
	for range maxPasses {
		list, err := p.list()
		if err != nil {
			return err
		}
		members, err := f.Members()
		if err != nil {
			return err
		}
		outside := 0
		for _, process := range list {
			if members[process.Outer] || process.Ended() {
				continue
			}
			outside++
			if err := f.Add(process.Outer); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if outside == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w after %d passes", errStill, maxPasses)
}

// stop sends SIGSTOP until a pass finds none running.
func (p *Pauser) stop() error {
	p.stopped = make(map[int]uint64)
	running := 0
	for pass := range maxPasses {
		list, err := p.list()
		if err != nil {
			return err
		}
		var found, fresh int
		if found, fresh, err = p.signal(list); err != nil || found == 0 {
			return err
		}
		running = found
		if fresh == 0 {
			// All know already, and need time to get there.
			time.Sleep(time.Duration(min(pass, maxSleep)) * time.Millisecond)
		}
	}
	return hint.Errorf("it may start processes faster than they can be stopped: nook kill ends it",
		"%d %w after %d passes", running, errStill, maxPasses)
}

// signal sends SIGSTOP to all that run, without a pause in between, and counts
// them and those that were not sent it before.
func (p *Pauser) signal(list []processes.Process) (running, fresh int, err error) {
	var send []processes.Process
	for _, process := range list {
		if !process.Stopped(p.asked(process)) {
			send = append(send, process)
		}
	}
	for _, process := range send {
		if !p.asked(process) {
			fresh++
			p.stopped[process.Outer] = process.Start
		}
		if err := unix.Kill(process.Outer, unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
			return len(send), fresh, fmt.Errorf("stop process %d: %w", process.Pid, err)
		}
	}
	return len(send), fresh, nil
}

func (p *Pauser) asked(process processes.Process) bool {
	start, ok := p.stopped[process.Outer]
	return ok && start == process.Start
}

// cont sends SIGCONT to those that we stopped.
func (p *Pauser) cont() error {
	list, err := p.list()
	if err != nil {
		return err
	}
	var errs []error
	last := len(list) - 1
	send := func(process processes.Process) {
		if !p.asked(process) {
			return
		}
		if err := unix.Kill(process.Outer, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("continue process %d: %w", process.Pid, err))
		}
	}
	// Pid 1 stands last; the others parents first.
	for i := last - 1; i >= 0; i-- {
		send(list[i])
	}
	if last >= 0 {
		send(list[last])
	}
	if len(errs) == 0 {
		p.stopped = nil
	}
	return errors.Join(errs...)
}

// list is the container's processes, parents before their children, but pid 1
// last of all.
func (p *Pauser) list() ([]processes.Process, error) {
	all, err := processes.List(p.monitor)
	if err != nil {
		return nil, err
	}
	for i, process := range all {
		if process.Inner == 1 {
			return append(append(all[:i:i], all[i+1:]...), process), nil
		}
	}
	return all, nil
}
