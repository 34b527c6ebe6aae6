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
//	Pause   STOP sshd, wait, STOP sh, wait, STOP vi, wait ... STOP pid 1
//	Resume  CONT vi, CONT sh, CONT sshd ...                   CONT pid 1
//
// A parent that stands still before its children are stopped, and goes on
// after them, finds none of them stopped (wait(2), WUNTRACED): a shell would take
// the terminal from its job and go on alone. Pid 1 comes last of all, so that
// who finds it stopped knows that the others are; unless it has a terminal
// and may be such a shell: then it comes first.
package pause

import (
	"errors"
	"fmt"
	"slices"
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
	// inOrder passes wait for parents. Then all are sent SIGSTOP at once: a tree
	// that grows faster than it is climbed has to be caught.
	inOrder   = 20
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
	// For tests: signals also where there is a freezer, and fewer passes.
	noFreezer bool
	passes    int
}

// New takes the container's id and its monitor's pid as /proc counts
// (containers.Self): that of the calling process.
func New(id string, monitor int) *Pauser {
	return &Pauser{id: id, monitor: monitor, passes: maxPasses}
}

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

// gather moves every process of the container in until a pass finds none
// outside.
func (p *Pauser) gather(f *cgroups.Freezer) error {
	for range p.passes {
		list, err := processes.List(p.monitor)
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
	return fmt.Errorf("%w after %d passes", errStill, p.passes)
}

// stop sends SIGSTOP until a pass finds none running.
func (p *Pauser) stop() error {
	p.stopped = make(map[int]uint64)
	running := 0
	for pass := range p.passes {
		list, err := processes.List(p.monitor)
		if err != nil {
			return err
		}
		var fresh int
		if running, fresh, err = p.signal(list, pass < inOrder); err != nil || running == 0 {
			return err
		}
		if fresh == 0 {
			// All know already, and need time to get there.
			time.Sleep(time.Duration(min(pass, maxSleep)) * time.Millisecond)
		}
	}
	return hint.Errorf("it may start processes faster than they can be stopped: nook kill ends it",
		"%d %w after %d passes", running, errStill, p.passes)
}

// signal sends SIGSTOP to those that run, in order: but to who has to wait for
// others. It counts all that run, and those that were not sent it before.
func (p *Pauser) signal(list []processes.Process, ordered bool) (running, fresh int, err error) {
	runs := make(map[int]processes.Process)
	for _, process := range list {
		if !process.Stopped(p.asked(process)) {
			runs[process.Pid] = process
		}
	}
	for _, process := range runs {
		if ordered && waits(process, runs) {
			continue
		}
		if !p.asked(process) {
			fresh++
			p.stopped[process.Outer] = process.Start
		}
		if err := unix.Kill(process.Outer, unix.SIGSTOP); err != nil && !errors.Is(err, unix.ESRCH) {
			return len(runs), fresh, fmt.Errorf("stop process %d: %w", process.Pid, err)
		}
	}
	return len(runs), fresh, nil
}

// waits tells whether others are to stop before the process: its parent, and
// for pid 1 everybody else, or the other way round where it has a terminal.
func waits(process processes.Process, runs map[int]processes.Process) bool {
	if process.Inner == 1 {
		return process.TTY == 0 && len(runs) > 1
	}
	parent, running := runs[process.Parent]
	return running && (parent.Inner != 1 || parent.TTY != 0)
}

func (p *Pauser) asked(process processes.Process) bool {
	start, ok := p.stopped[process.Outer]
	return ok && start == process.Start
}

// cont sends SIGCONT to those that we stopped.
func (p *Pauser) cont() error {
	list, err := processes.List(p.monitor)
	if err != nil {
		return err
	}
	// Children before their parents. Pid 1 has no parent here, nor have those
	// that exec started beside it.
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b processes.Process) int { return isFirst(a) - isFirst(b) })
	var errs []error
	for _, process := range list {
		if !p.asked(process) {
			continue
		}
		if err := unix.Kill(process.Outer, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("continue process %d: %w", process.Pid, err))
		}
	}
	if len(errs) == 0 {
		p.stopped = nil
	}
	return errors.Join(errs...)
}

func isFirst(p processes.Process) int {
	if p.Inner == 1 {
		return 1
	}
	return 0
}
