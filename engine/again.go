package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/entry"
	"nook/containers/monitor"
	"nook/containers/pid1"
	"nook/images/layers"
	"nook/internal/fdpass"
	"nook/internal/hint"
	"nook/namespaces"
)

// runAgain starts a container's first process once more, for its monitor: see
// monitor.AgainName. It runs in the container's user namespace already.
func runAgain(args []string) int {
	answer := os.NewFile(monitor.AgainAnswer, "answer")
	unix.CloseOnExec(monitor.AgainAnswer)
	told := monitor.Again{}
	tell := func() error { return json.NewEncoder(answer).Encode(told) }
	pid, err := startAgain(args, func(pid int) error {
		told.Pid = pid
		return tell()
	})
	told.Pid = pid
	if err != nil {
		told.Error = err.Error()
	}
	if tell() != nil || err != nil {
		return hint.ExitNook
	}
	return 0
}

// startAgain calls begun as soon as there is a process.
func startAgain(args []string, begun func(pid int) error) (pid int, err error) {
	const wanted = 2
	if len(args) != wanted {
		return 0, fmt.Errorf("%s: not started by a monitor", monitor.AgainName)
	}
	root := args[0]
	ct := containers.Open(containersDir(root)).At(args[1])
	cfg, err := ct.Config()
	if err != nil {
		return 0, err
	}
	e := &Engine{
		root: root, ids: namespaces.IDs{Mode: namespaces.Mode(cfg.IDs)},
		layers:     layers.NewStore(filepath.Join(root, "layers"), layers.IDs(cfg.IDs)),
		containers: containers.Open(containersDir(root)),
		volumes:    containers.Open(containersDir(root)).Volumes(),
	}
	var f fds
	defer f.close()
	std, tty := entry.None(), -1
	if cfg.TTY {
		tty = f.copy(monitor.AgainTTY)
	} else {
		std = [3]int{-1, f.copy(monitor.AgainStdout), f.copy(monitor.AgainStderr)}
		if cfg.OpenStdin {
			std[0] = f.copy(monitor.AgainStdin)
		}
	}
	report := f.copy(monitor.AgainReport)
	var init *pid1.Executable
	if cfg.Init {
		if init, err = reaper(&f); err != nil {
			return 0, err
		}
	}
	if f.err != nil {
		return 0, f.err
	}
	for fd := monitor.AgainAnswer; fd <= monitor.AgainTTY; fd++ {
		unix.CloseOnExec(fd)
	}
	launch, err := pid1.Begin(e.firstOf(cfg))
	if err != nil {
		return 0, err
	}
	defer launch.Close()
	r, err := e.rootFor(numbers(launch, &f), ct, cfg)
	if err != nil {
		return 0, err
	}
	if r.Secrets, err = e.secretFiles(ct, cfg, nil); err != nil {
		return 0, err
	}
	spec, err := e.spec(cfg, r)
	if err != nil {
		return 0, err
	}
	spec.Stdio, spec.TTY, spec.Init = std, tty, init
	if err := launch.Build(spec); err != nil {
		return 0, err
	}
	pid, err = launch.Program().Start(unix.CLONE_NEWPID|unix.CLONE_PARENT, report)
	if err != nil {
		return 0, namespaces.Explain(err)
	}
	if err := begun(pid); err != nil {
		return pid, err
	}
	// The report is read by the monitor: pid 1 and it alone hold the pipe.
	f.drop(report)
	_ = unix.Close(monitor.AgainReport)
	for _, fd := range spec.Stdio {
		f.drop(fd)
	}
	f.drop(spec.TTY)
	if err = launch.Go(); err == nil {
		err = launch.Finish()
	}
	if !errors.Is(err, fdpass.ErrGone) {
		return pid, err
	}
	return pid, nil // the report tells why it is gone
}
