package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"nook/containers/entry"
	"nook/internal/hint"
	"nook/internal/raw"
)

// Unshare runs a command of the host in the user namespace of the data root, in
// which its caller is root and owns what containers wrote, and returns its exit
// code, 128+n for signal n. The command has this process's standard streams,
// directory and environment, NOOK_ROOT with it; a mount namespace of its own; and
// gets the signals that this process gets.
func (e *Engine) Unshare(ctx context.Context, command []string) (code int, err error) {
	if len(command) == 0 {
		return 0, hint.Errorf("name one", "unshare: no command")
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, fmt.Errorf("unshare: %w", err)
	}
	env := put(os.Environ(), "NOOK_ROOT", "NOOK_ROOT="+e.root)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	c, err := e.fork(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS, func(p *raw.Program) {
		argv, envp := p.Strings(command), p.Strings(env)
		for _, candidate := range entry.Candidates(command[0], dir, env) {
			p.Exec(entry.StepExec, candidate, argv, envp)
		}
		p.Fail(entry.StepExec)
	})
	if err != nil {
		return 0, err
	}
	if err := c.refused(); err != nil {
		c.wait()
		return 0, explainUnshare(err, command[0])
	}
	status := c.waitForwarding(signals)
	if status.Signaled() {
		return hint.ExitSignal + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// waitForwarding reaps the child and sends it what arrives until then.
func (c *child) waitForwarding(signals <-chan os.Signal) unix.WaitStatus {
	_, err := unix.IoctlGetTermios(unix.Stdin, unix.TCGETS)
	terminal := err == nil
	ended := make(chan struct{})
	var forward sync.WaitGroup
	forward.Go(func() {
		for {
			select {
			case <-ended:
				return
			case sig := <-signals:
				// What is typed at a terminal goes to the child as well.
				if number, ok := sig.(unix.Signal); ok && !(terminal && (number == unix.SIGINT || number == unix.SIGQUIT)) {
					_ = unix.Kill(c.pid, number)
				}
			}
		}
	})
	// It is reaped when nobody sends to its pid any more, which is another's then.
	var info unix.Siginfo
	for errors.Is(unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	close(ended)
	forward.Wait()
	return c.wait()
}

// explainUnshare gives the exit codes of env(1) and its like.
func explainUnshare(err error, command string) error {
	var step *raw.Error
	if !errors.As(err, &step) || step.Step != entry.StepExec {
		return fmt.Errorf("unshare: %w", err)
	}
	code := hint.ExitCannotRun
	if step.Errno == unix.ENOENT {
		code = hint.ExitNotFound
	}
	return hint.WithCode(fmt.Errorf("unshare: exec %q: %w", command, step.Errno), code)
}
