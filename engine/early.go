package engine

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/entry"
	"nook/containers/monitor"
	"nook/containers/pid1"
	"nook/internal/raw"
	"nook/namespaces"
)

// early is a container's monitor and pid 1 that were forked before it is known
// what they run: they make the namespaces, and newuidmap and newgidmap write
// the id maps, while the command looks for the image and makes the record.
// Both then wait for the command, and end when it does.
type early struct {
	f fds
	stdio
	ours    int // the command's end of the control socket
	reportW int
	pid     int
	init    *pid1.Executable // with Init
	launch  *pid1.Launch
	program *raw.Program
	spawn   monitor.Spawn
	maps    *namespaces.Maps // nil where the monitor maps itself
	number  func() int       // numbers for descriptors of pid 1's own
	taken   bool
}

// early forks them. Of the record it needs Network, Init, OpenStdin and TTY.
func (e *Engine) early(cfg *containers.Config, leash *os.File) (*early, error) {
	y := &early{}
	if err := e.forkEarly(y, cfg, leash); err != nil {
		y.close()
		return nil, err
	}
	return y, nil
}

func (e *Engine) forkEarly(y *early, cfg *containers.Config, leash *os.File) (err error) {
	var control int
	y.ours, control = y.f.socketpair(unix.SOCK_STREAM)
	var reportR int
	reportR, y.reportW = y.f.pipe()
	y.stdio = openStdio(&y.f, cfg)
	null := y.f.null()
	if cfg.Init {
		if y.init, err = reaper(&y.f); err != nil {
			return err
		}
	}
	if y.f.err != nil {
		return y.f.err
	}
	if y.launch, err = pid1.Begin(e.firstOf(cfg)); err != nil {
		return err
	}
	ahead := raw.TakeAhead(e.ids.Tools)
	defer func() {
		if y.pid == 0 {
			ahead.End()
		}
	}()
	y.spawn = monitor.Spawn{
		Pid1: y.launch.Program(), Ahead: ahead, Foreign: []int{y.ours, y.launch.Ours()},
		Control: control, Null: null, Report: reportR,
		Stdin: y.stdin, Stdout: y.stdout, Stderr: y.stderr, TTY: y.ttyOutside, Leash: -1,
	}
	if leash != nil {
		y.spawn.Leash = y.f.copy(int(leash.Fd()))
	}
	if e.ids.SelfMapped() {
		y.spawn.MapSelf = e.ids.MapSelf
	}
	if y.f.err != nil {
		return y.f.err
	}
	y.number = numbers(y.launch, &y.f)
	y.spawn.Keep = append(y.launch.Keep(), y.inside[0], y.inside[1], y.inside[2], y.ttyInside, y.reportW)
	if y.init != nil {
		y.spawn.Keep = append(y.spawn.Keep, y.init.FD)
	}
	y.program = y.launch.Program().Part()
	y.program.Share()
	y.launch.Program().Share()
	y.spawn.Begin(y.program)
	if ahead != nil {
		y.pid, err = ahead.Start(y.program, y.reportW)
	} else {
		y.pid, err = y.program.Start(unix.CLONE_NEWUSER|unix.CLONE_NEWPID, y.reportW)
	}
	if err != nil {
		return namespaces.Explain(err)
	}
	switch {
	case ahead != nil:
		y.maps = e.ids.AdoptMaps(ahead)
	case y.spawn.MapSelf == nil:
		y.maps = e.ids.StartMaps(y.pid)
	}
	return nil
}

// take gives the monitor to one start: another needs one of its own.
func (y *early) take() *early {
	if y == nil || y.taken {
		return nil
	}
	y.taken = true
	return y
}

// numbers gives one number after the other that pid 1 may use for descriptors
// of its own: those it has are in f, or the launch's.
func numbers(l *pid1.Launch, f *fds) func() int {
	next := max(l.Number(), f.number())
	return func() int {
		next++
		return next - 1
	}
}

// firstOf is what pid 1 is told of a container first.
func (e *Engine) firstOf(cfg *containers.Config) pid1.Early {
	return pid1.Early{SingleID: e.ids.Mode == namespaces.Single, Namespaces: uintptr(entry.Namespaces(cfg.Network))}
}

// drop closes what only the container may hold, so that its end is seen.
func (y *early) drop(tty bool) {
	if y.spawn.Ahead != nil {
		y.spawn.Ahead.Wait()
	}
	y.f.drop(y.reportW)
	y.f.drop(y.spawn.Control)
	// The monitor waits for the terminal until nobody can send it any more.
	y.f.drop(y.ttyInside)
	if !tty {
		// Nor does it end before its streams do, while abort waits for it.
		for _, fd := range y.inside {
			y.f.drop(fd)
		}
	}
}

// abort ends them: there is nothing to run.
func (y *early) abort() {
	_ = unix.Kill(y.pid, unix.SIGKILL)
	if y.maps != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = y.maps.Wait(ctx)
	}
	s := started{pid: y.pid}
	s.wait()
	y.close()
}

func (y *early) close() {
	if y.launch != nil {
		y.launch.Close()
	}
	y.f.close()
}
