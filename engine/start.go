package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/entry"
	"nook/containers/monitor"
	"nook/containers/pid1"
	"nook/internal/fdpass"
	"nook/internal/frame"
	"nook/internal/hint"
	"nook/internal/raw"
	"nook/namespaces"
	"nook/namespaces/confine"
	"nook/rootfs"
)

// started is a container's monitor as the command that started it sees it.
type started struct {
	pid     int
	control *os.File
	launch  *pid1.Launch
	program *raw.Program
	// What the monitor has too, for a container that ends before it starts.
	container containers.Container
	lock      *containers.Lock
	began     time.Time
	// settled: the container ended before its monitor started, and is gone.
	settled        bool
	name           string
	report         *os.File
	stdout, stderr *os.File // nil for none
}

// patience is how long a monitor waits for the end of a short command before
// it starts.
const patience = 10 * time.Millisecond

// close lets go of the monitor, which goes on.
func (s *started) close() {
	for _, f := range []*os.File{s.control, s.report, s.stdout, s.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
	s.launch.Close()
	s.program.Close()
}

// wait reaps the monitor, so that nothing of a container is left when its
// foreground command returns.
func (s *started) wait() {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(s.pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// start starts a container's monitor and pid 1. Both run before this command
// is done: it writes their id maps and looks their user up meanwhile.
func (e *Engine) start(ctx context.Context, h held, tty Terminal, patience time.Duration) (s *started, err error) {
	var f fds
	ct, cfg := h.Container, h.cfg
	defer f.close()
	ours, control := f.socketpair(unix.SOCK_STREAM)
	reportR, reportW := f.pipe()
	mapsR, mapsW := f.pipe()
	std := openStdio(&f, cfg)
	dir := f.copy(h.lock.FD())
	root, err := e.rootFor(&f, ct, cfg)
	if err = errors.Join(err, f.err); err != nil {
		return nil, err
	}
	spec, err := e.spec(&f, cfg, root)
	if err = errors.Join(err, f.err); err != nil {
		return nil, err
	}
	spec.Stdio, spec.TTY = std.inside, std.ttyInside
	if tty != nil {
		if spec.Rows, spec.Cols, err = tty.Size(); err != nil {
			return nil, fmt.Errorf("read the terminal's size: %w", err)
		}
	}
	launch, err := pid1.Build(spec)
	if err != nil {
		return nil, err
	}
	runtimeDir, _ := RuntimeDir()
	spawn := monitor.Spawn{
		ID: cfg.ID, RuntimeDir: runtimeDir, Pid1: launch.Program(),
		Maps: e.ids.MapSelf, MapsFirst: true, Leave: []int{mapsW, launch.Ours()},
		Control: control, Dir: dir, Null: f.null(), Report: reportR,
		Stdin: std.stdin, Stdout: std.stdout, Stderr: std.stderr, TTY: std.ttyOutside, Leash: -1,
		Exe: ownFile(),
	}
	if h.leash != nil {
		spawn.Leash = f.copy(int(h.leash.Fd()))
	}
	if !e.ids.SelfMapped() {
		spawn.MapsFirst = false
		spawn.Maps = func(p *raw.Program) { p.Wait("wait for the id maps", mapsR) }
	}
	if cfg.Remove && !cfg.TTY {
		spawn.Patience = patience
	}
	if f.err != nil {
		launch.Close()
		return nil, f.err
	}
	program := launch.Program().Part()
	if rootByName(cfg.User) {
		program.Share()
	}
	spawn.Steps(program)
	pid, err := program.Start(unix.CLONE_NEWUSER|unix.CLONE_NEWPID, reportW)
	if err != nil {
		launch.Close()
		return nil, namespaces.Explain(err)
	}
	s = &started{
		pid: pid, launch: launch, program: program, container: ct, name: cfg.Name,
		lock: h.lock, began: time.Now(), control: f.file(ours, "control"), report: f.file(reportR, "report"),
		stdout: f.file(std.stdout, "stdout"), stderr: f.file(std.stderr, "stderr"),
	}
	f.drop(reportW)
	f.drop(control)
	// The monitor waits for the terminal until nobody can send it any more.
	f.drop(std.ttyInside)
	if !cfg.TTY {
		// Nor does it end before its streams do, while abort waits for it.
		for _, fd := range std.inside {
			f.drop(fd)
		}
	}
	if err := e.finish(ctx, s, spec.WaitForMaps, mapsW); err != nil {
		return nil, s.abort(err)
	}
	return s, nil
}

// rootByName tells whether USER is surely the user that pid 1 is already, so
// that it may share our memory (raw.Program.Share).
func rootByName(spec string) bool { return spec == "" || spec == "0" || spec == "0:0" }

// finish does the launcher's part while monitor and pid 1 already run.
func (e *Engine) finish(ctx context.Context, s *started, maps bool, mapsW int) error {
	if maps {
		if err := e.ids.WriteMaps(ctx, s.pid); err != nil {
			return err
		}
		if err := s.launch.MapsWritten(); err != nil {
			return err
		}
		if _, err := unix.Write(mapsW, []byte{1}); err != nil {
			return fmt.Errorf("let the monitor go on: %w", err)
		}
	}
	return s.launch.Finish()
}

// abort ends what could not be started and finds out why.
func (s *started) abort(cause error) error {
	if !errors.Is(cause, fdpass.ErrGone) {
		_ = unix.Kill(s.pid, unix.SIGKILL)
		s.wait()
		s.close()
		return cause
	}
	// The monitor may be there to tell; or it never came to life, and the
	// report is still in the pipe.
	defer s.wait()
	defer s.close()
	if err := s.firstWord(); err != nil {
		return err
	}
	if err := s.reported(); err != nil {
		// A monitor that waits would find no report any more, and take the
		// container for one that ran.
		_ = frame.Write(s.control, frame.Done, nil)
		return err
	}
	return cause
}

// reported returns the error of the raw children, if they left one in the
// pipe. It does not wait: they are gone.
func (s *started) reported() error {
	if rep, ok, err := raw.ReadReport(present{s.report}); err == nil && ok {
		return s.explain(rep)
	}
	return nil
}

// explain turns a report into an error with the exit code that docker gives.
func (s *started) explain(rep raw.Report) error {
	if rep.Step == monitor.StepState {
		return hint.Errorf("make room on the file system of the data root",
			"start the container: write its state: %w", rep.Errno)
	}
	return explain(s.program.Error(rep), s.launch.Command())
}

// namespaceSteps are those whose errors are about namespaces: a full disk says
// ENOSPC too.
func namespaceSteps() []string { return []string{pid1.StepNamespaces, monitor.StepFork} }

func explain(e *raw.Error, command string) error {
	if e.Step != entry.StepExec {
		if slices.Contains(namespaceSteps(), e.Step) {
			return namespaces.Explain(e)
		}
		return fmt.Errorf("start the container: %w", e)
	}
	return entry.ExplainExec(e, command)
}

// spec is what pid 1 gets to know of the record.
func (e *Engine) spec(f *fds, cfg *containers.Config, root *rootfs.Root) (pid1.Spec, error) {
	args := cfg.Command()
	if len(args) == 0 {
		return pid1.Spec{}, hint.Errorf("name one after the image: nook run IMAGE COMMAND",
			"the image has no ENTRYPOINT and no CMD, and no command was given")
	}
	spec := pid1.Spec{
		Root: root, Args: args, Env: cfg.Env, User: cfg.User,
		WorkingDir: cfg.WorkingDir, Hostname: cfg.Hostname,
		WaitForMaps: !e.ids.SelfMapped(),
		SingleID:    e.ids.Mode == namespaces.Single,
		Namespaces:  uintptr(entry.Namespaces(cfg.Network)),
		Loopback:    cfg.Network != "host",
		Caps:        confine.DefaultCaps,
		Filter:      confine.Filter(e.ids.Mode == namespaces.Single),
	}
	if cfg.Init {
		init, err := reaper(f)
		if err != nil {
			return spec, err
		}
		spec.Init = init
	}
	return spec, nil
}
