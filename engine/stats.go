package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"nook/containers"
	"nook/containers/processes"
)

// StatsOptions say of which containers Stats tells, and how often.
type StatsOptions struct {
	// Names are containers, each by name, id or prefix. None: all that run.
	Names []string
	// All: without Names, also those that don't run.
	All bool
	// Once: one round, not one after the other.
	Once bool
	// Interval is the time between two rounds; 0: a second.
	Interval time.Duration
}

// SourceProc says that the numbers are sums over the container's processes, as
// /proc tells them: no control group of the container's is ours to read.
const SourceProc = "proc"

// Stat is what a container uses at one time. All is 0 of one that doesn't run.
type Stat struct {
	Asked    string // what the caller called it, or its id
	ID, Name string
	// CPUPercent is the time its processes ran since the round before: 100 is
	// one processor all the time.
	CPUPercent float64
	// Memory is in bytes; what several processes share counts once where /proc
	// tells shares (smaps_rollup), for each of them otherwise. The limit is the
	// host's memory.
	Memory, MemoryLimit uint64
	Network             processes.Traffic // bytes; 0 with the host's network
	Block               processes.Traffic // bytes read from and written to disks
	Threads             int               // docker's PIDS: the kernel counts threads
	Source              string
}

// firstInterval is how long the first round waits for a second look.
const firstInterval = 500 * time.Millisecond

// Stats calls show with each round until ctx ends, which is no error, show
// returns one, or all of the named containers are gone. A name that no
// container has is an error of the first round only.
func (e *Engine) Stats(ctx context.Context, o StatsOptions, show func([]Stat) error) error {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	before, err := e.measure(ctx, o)
	if err != nil {
		return err
	}
	wait := min(o.Interval, firstInterval)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = o.Interval
		now, err := e.measure(ctx, o)
		switch {
		case errors.Is(err, containers.ErrNotFound) && len(o.Names) > 0:
			o.Names = e.remaining(o.Names)
			if len(o.Names) == 0 {
				return nil
			}
			continue
		case ctx.Err() != nil:
			return nil //nolint:nilerr // its end is how a stream ends
		case err != nil:
			return err
		}
		stats := make([]Stat, len(now))
		for i, u := range now {
			stats[i] = u.since(before)
		}
		if err := show(stats); err != nil || o.Once {
			return err
		}
		before = now
	}
}

// remaining leaves out the names of containers that are gone.
func (e *Engine) remaining(names []string) []string {
	var out []string
	for _, name := range names {
		if _, err := e.containers.Find(name); !errors.Is(err, containers.ErrNotFound) {
			out = append(out, name)
		}
	}
	return out
}

// use is what was measured of one container at one time.
type use struct {
	stat Stat
	at   time.Duration // since boot
	// cpu is the time of all its processes and of those that they waited for,
	// in ticks.
	cpu uint64
	// execed are those that exec started, by pid: nobody in the container
	// waits for them, so that their time is gone when they end.
	execed map[int]execed
}

type execed struct{ start, cpu uint64 }

// measure looks at the containers: at /proc once for all of them.
func (e *Engine) measure(ctx context.Context, o StatsOptions) ([]use, error) {
	list, err := e.statList(ctx, o)
	if err != nil {
		return nil, err
	}
	snapshot, err := processes.Take()
	if err != nil {
		return nil, err
	}
	host, err := processes.ReadHost()
	if err != nil {
		return nil, err
	}
	uses := make([]use, len(list))
	for i, c := range list {
		uses[i] = use{at: host.Uptime, stat: Stat{Asked: c.asked, ID: c.ID, Name: c.Name, Source: SourceProc}}
		if !c.State.Status.Live() {
			continue
		}
		found, err := snapshot.Below(c.State.Monitor.Pid)
		if err != nil {
			continue // it ended just now
		}
		uses[i].stat.MemoryLimit = host.Memory
		uses[i].add(found, c.State.Monitor.Pid, c.Network == "host")
	}
	return uses, ctx.Err()
}

type asked struct {
	Summary
	asked string
}

func (e *Engine) statList(ctx context.Context, o StatsOptions) ([]asked, error) {
	var out []asked
	if len(o.Names) == 0 {
		all, err := e.List(ctx, ListOptions{All: o.All})
		for _, c := range all {
			out = append(out, asked{c, c.ID})
		}
		return out, err
	}
	for _, name := range o.Names {
		ct, err := e.containers.Find(name)
		if err != nil {
			return nil, err
		}
		cfg, err := ct.Config()
		if errors.Is(err, fs.ErrNotExist) { // removed since it was found
			err = fmt.Errorf("container %q: %w", name, containers.ErrNotFound)
		}
		if err != nil {
			return nil, err
		}
		state, err := ct.State()
		if err != nil {
			return nil, err
		}
		out = append(out, asked{Summary{ID: ct.ID, Name: cfg.Name, Network: cfg.Network, State: state}, name})
	}
	return out, nil
}

func (u *use) add(list []processes.Process, monitor int, hostNetwork bool) {
	u.execed = make(map[int]execed)
	for _, p := range list {
		cpu := p.UserTime + p.SysTime + p.ChildTime
		u.cpu += cpu
		if p.Parent == monitor && p.Inner != 1 {
			u.execed[p.Pid] = execed{p.Start, cpu}
		}
		if p.Ended() {
			continue
		}
		u.stat.Threads += p.Threads
		u.stat.Memory += p.Share()
		// Who may not read it, of a process that may not be traced, counts none.
		if io, err := p.IO(); err == nil {
			u.stat.Block.In += io.In
			u.stat.Block.Out += io.Out
		}
		if p.Inner == 1 && !hostNetwork {
			if net, err := p.Network(); err == nil {
				u.stat.Network = net
			}
		}
	}
}

// since is the Stat with what was used since the round before.
func (u use) since(round []use) Stat {
	for _, before := range round {
		elapsed := u.at - before.at
		if before.stat.ID != u.stat.ID || elapsed <= 0 {
			continue
		}
		was := before.cpu
		for pid, s := range before.execed {
			if now, there := u.execed[pid]; !there || now.start != s.start {
				was -= s.cpu
			}
		}
		// Less than before: it was started again, or somebody doesn't wait for
		// children (SIGCHLD ignored), whose time is then lost.
		if u.cpu > was {
			ran := time.Duration(u.cpu-was) * time.Second / processes.TicksPerSecond
			u.stat.CPUPercent = 100 * float64(ran) / float64(elapsed)
		}
		break
	}
	return u.stat
}

// MemoryPercent is the share of the limit.
func (s Stat) MemoryPercent() float64 {
	if s.MemoryLimit == 0 {
		return 0
	}
	return 100 * float64(s.Memory) / float64(s.MemoryLimit)
}
