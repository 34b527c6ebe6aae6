package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
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
	socket  int // control's number, as File.Fd would make it block
	launch  *pid1.Launch
	program *raw.Program
	// What the monitor has too, for a container that ends before it starts.
	container containers.Container
	lock      *containers.Lock
	began     time.Time
	// settled: the container ended before its monitor started, and is gone.
	settled bool
	name    string
	// foretold: the state says that the container runs already.
	foretold bool
	// again: by its restart policy it may outlive its first process.
	again          bool
	reportFD       int // report's number
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

// start lets a container's monitor and pid 1 begin. They were forked before,
// or are now. Both run before this command is done: it looks their user up
// meanwhile.
func (e *Engine) start(ctx context.Context, h held, tty Terminal, patience time.Duration) (s *started, err error) {
	cfg := h.cfg
	y := h.early.take()
	if y == nil {
		if y, err = e.early(cfg, h.leash); err != nil {
			return nil, err
		}
	}
	defer y.f.close()
	if err = e.readyLayers(ctx, cfg); err == nil {
		err = e.finishFills(ctx, cfg)
	}
	if err == nil {
		err = e.build(y, h, tty, patience)
	}
	if err != nil {
		y.abort()
		return nil, err
	}
	s = &started{
		pid: y.pid, launch: y.launch, program: y.program, container: h.Container, name: cfg.Name,
		lock: h.lock, again: cfg.Restart.Wanted(), began: time.Now(), socket: y.ours, control: y.f.file(y.ours, "control"), report: y.f.file(y.spawn.Report, "report"),
		stdout: y.f.file(y.spawn.Stdout, "stdout"), stderr: y.f.file(y.spawn.Stderr, "stderr"),
	}
	y.drop(cfg.TTY)
	s.reportFD = y.spawn.Report
	if h.ahead {
		if s.foretold, err = foretell(h, y.pid); err != nil {
			return nil, s.abort(e.noRoom(err))
		}
	}
	if err := s.finish(ctx, y.maps, h.lock.FD()); err != nil {
		return nil, s.abort(err)
	}
	return s, nil
}

// build adds to a monitor and a pid 1 that were forked what they are to do.
func (e *Engine) build(y *early, h held, tty Terminal, patience time.Duration) error {
	cfg := h.cfg
	root, err := e.rootFor(y.number, h.Container, cfg)
	if err != nil {
		return err
	}
	if root.Secrets, err = e.secretFiles(h.Container, cfg, h.secrets); err != nil {
		return err
	}
	spec, err := e.spec(cfg, root)
	if err != nil {
		return err
	}
	spec.Stdio, spec.TTY, spec.Init = y.inside, y.ttyInside, y.init
	if tty != nil {
		if spec.Rows, spec.Cols, err = tty.Size(); err != nil {
			return fmt.Errorf("read the terminal's size: %w", err)
		}
	}
	if err := y.launch.Build(spec); err != nil {
		return err
	}
	y.spawn.ID = cfg.ID
	y.spawn.RuntimeDir, _ = RuntimeDir()
	y.spawn.Exe = ownFile()
	if cfg.Remove && !cfg.TTY && len(cfg.AnonymousVolumes()) == 0 {
		y.spawn.Patience = patience
	}
	return y.spawn.Become()
}

// finish does the launcher's part while monitor and pid 1 already run.
func (s *started) finish(ctx context.Context, maps *namespaces.Maps, dir int) error {
	if maps != nil {
		if err := maps.Wait(ctx); err != nil {
			return err
		}
	}
	err := s.launch.Go()
	if serr := monitor.Send(s.socket, dir); serr != nil && err == nil {
		err = fmt.Errorf("%w: %w", fdpass.ErrGone, serr)
	}
	if err != nil {
		return err
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
	if s.again {
		_ = unix.Kill(s.pid, unix.SIGKILL) // or there would be no end to wait for
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

// idSteps are how those begin that take an id which the user chose. The kernel
// says EINVAL to one that the user namespace doesn't map.
func idSteps() []string { return []string{"mount a tmpfs on ", "change the owner of ", "set the user"} }

func explain(e *raw.Error, command string) error {
	if e.Step != entry.StepExec {
		if slices.Contains(namespaceSteps(), e.Step) {
			return namespaces.Explain(e)
		}
		if e.Step == rootfs.StepPivot && errors.Is(e, unix.EINVAL) {
			return hint.Errorf("this system runs from its initramfs: change to another root file system with switch_root first",
				"start the container: %w", e)
		}
		if errors.Is(e, unix.EINVAL) && slices.ContainsFunc(idSteps(), func(s string) bool { return strings.HasPrefix(e.Step, s) }) {
			return hint.Errorf("is its uid or gid one that the container has? nook info tells which; with single ids it is its user's alone",
				"start the container: %w", e)
		}
		return fmt.Errorf("start the container: %w", e)
	}
	return entry.ExplainExec(e, command)
}

// spec is what pid 1 gets to know of the record.
func (e *Engine) spec(cfg *containers.Config, root *rootfs.Root) (pid1.Spec, error) {
	args := cfg.Command()
	if len(args) == 0 {
		return pid1.Spec{}, hint.Errorf("name one after the image: nook run IMAGE COMMAND",
			"the image has no ENTRYPOINT and no CMD, and no command was given")
	}
	spec := pid1.Spec{
		Root: root, Args: args, Env: cfg.Env, User: cfg.User,
		WorkingDir: cfg.WorkingDir, Hostname: cfg.Hostname,
		Loopback: cfg.Network != "host",
		Caps:     confine.DefaultCaps,
		Filter:   confine.Filter(e.ids.Mode == namespaces.Single),
	}
	return spec, nil
}
