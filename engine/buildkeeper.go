package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"nook/containers/entry"
	"nook/containers/pid1"
	"nook/internal/hint"
	"nook/internal/raw"
	"nook/namespaces"
	"nook/rootfs"
)

// A command of a build is a container without a record and a monitor:
//
//	command -- clone NEWUSER|NEWPID, raw --> keeper, pid 1 of a pid namespace
//	keeper  -- clone NEWPID, raw ----------> pid 1 of the container (containers/pid1)
//	        `- clone, raw -----------------> watcher: waits for the end of a pipe
//	command <- pipe: siginfo_t ------------- keeper, when pid 1 has ended
//
// The pipe's writing end is the command's alone: when it is closed, or the
// command killed, the watcher kills all that is in the keeper's pid namespace.
// When the keeper ends, whatever ends it, the kernel does that. None of them is
// ever a Go program, nor executes anything before the entrypoint.

// keeper runs one container to its end.
type keeper struct {
	e       *Engine
	f       fds
	launch  *pid1.Launch
	program *raw.Program
	pid     int
	inside  [3]int
	number  func() int // numbers for descriptors of pid 1's own
	maps    *namespaces.Maps

	leash, status, report, output *os.File
	reportW                       int
}

// keep runs what spec says, whose Root is made by root from the numbers of
// descriptors, and returns its exit code. Out gets all its output.
func (e *Engine) keep(ctx context.Context, network string, spec pid1.Spec, root func(number func() int) (*rootfs.Root, error), out io.Writer) (code int, err error) {
	k := &keeper{e: e}
	defer k.close()
	if err := k.fork(network); err != nil {
		return 0, err
	}
	var all sync.WaitGroup
	defer all.Wait()
	letGo := func() { _ = k.leash.Close() }
	defer k.reap() // after the leash is closed
	defer letGo()
	stop := context.AfterFunc(ctx, letGo)
	defer stop()
	if err := k.begin(ctx, spec, root); err != nil {
		if errors.Is(err, ctx.Err()) {
			return 0, err
		}
		letGo()
		return 0, k.explain(ctx, err)
	}
	var copied error
	all.Go(func() { _, copied = io.Copy(out, k.output) })
	code, err = k.ended()
	all.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err == nil:
		if err = k.reported(); err == nil {
			err = copied
		}
	}
	return code, err
}

// fork starts the keeper and pid 1, which wait for what they are to do.
func (k *keeper) fork(network string) (err error) {
	f := &k.f
	leashR, leashW := f.pipe()
	reportR, reportW := f.pipe()
	statusR, statusW := f.pipe()
	outR, outW := f.pipe()
	k.inside = [3]int{-1, outW, outW}
	if f.err != nil {
		return f.err
	}
	widen(outR)
	k.launch, err = pid1.Begin(pid1.Early{
		SingleID: k.e.ids.Mode == namespaces.Single, Namespaces: uintptr(entry.Namespaces(network)),
	})
	if err != nil {
		return err
	}
	k.program = k.launch.Program().Part()
	k.program.Share()
	k.launch.Program().Share()
	k.steps(leashR, reportW, statusW)
	if k.pid, err = k.program.Start(unix.CLONE_NEWUSER|unix.CLONE_NEWPID, reportW); err != nil {
		return namespaces.Explain(err)
	}
	if !k.e.ids.SelfMapped() {
		k.maps = k.e.ids.StartMaps(k.pid)
	}
	k.number = numbers(k.launch, f)
	k.leash, k.status, k.report = f.file(leashW, "leash"), f.file(statusR, "status"), f.file(reportR, "report")
	k.output = f.file(outR, "output")
	for _, fd := range []int{leashR, statusW, outW, k.inside[0]} {
		f.drop(fd)
	}
	k.reportW = reportW
	return nil
}

// steps is the keeper's life.
func (k *keeper) steps(leashR, reportW, statusW int) {
	p := k.program
	p.Call("begin a session", unix.SYS_SETSID)
	p.CloseOthers(append(k.launch.Keep(), leashR, reportW, statusW, k.inside[0], k.inside[1])...)
	p.Call("close the command's end", unix.SYS_CLOSE, k.launch.Ours()).Ignore(unix.EBADF)
	if k.e.ids.SelfMapped() {
		k.e.ids.MapSelf(p)
	}
	pid := p.Fork("fork pid 1", unix.CLONE_NEWPID, k.launch.Program()).Save()
	p.CloseAllBut(leashR, statusW)
	p.Call("give up the report", unix.SYS_CLOSE, reportW)
	for fd := range 3 {
		p.Call("give up a standard stream", unix.SYS_CLOSE, fd).Ignore(unix.EBADF)
	}
	watcher := p.Part()
	watcher.Call("close the status", unix.SYS_CLOSE, statusW)
	watcher.Or(func() { watcher.Wait("wait for the command's end", leashR) }, func() {
		const all = ^uintptr(0)
		watcher.Call("kill all", unix.SYS_KILL, all, uintptr(unix.SIGKILL)).IgnoreAll()
	})
	p.Fork("fork the watcher", 0, watcher)
	const siginfo = 128
	info := p.Space(siginfo)
	p.Call("wait for pid 1", unix.SYS_WAITID, unix.P_PID, pid, info, unix.WEXITED, 0)
	p.Call("tell its end", unix.SYS_WRITE, statusW, info, siginfo)
	p.Call("end", unix.SYS_EXIT_GROUP, 0)
}

// begin lets pid 1 do what spec says.
func (k *keeper) begin(ctx context.Context, spec pid1.Spec, root func(func() int) (*rootfs.Root, error)) (err error) {
	if spec.Root, err = root(k.number); err != nil {
		return err
	}
	spec.Stdio, spec.TTY = k.inside, -1
	if err := k.launch.Build(spec); err != nil {
		return err
	}
	if k.maps != nil {
		maps := k.maps
		k.maps = nil
		if err := maps.Wait(ctx); err != nil {
			return err
		}
	}
	if err := k.launch.Go(); err != nil {
		return err
	}
	return k.launch.Finish()
}

// ended waits for pid 1's end.
func (k *keeper) ended() (code int, err error) {
	const (
		siCode, siStatus = 8, 24 // offsets in siginfo_t, on all 64 bit machines
		exited           = 1     // CLD_EXITED
		size             = 128
	)
	var info [size]byte
	if _, err := io.ReadFull(k.status, info[:]); err != nil {
		return 0, hint.Wrap(errKept, "somebody killed it, or the kernel did for want of memory: see dmesg")
	}
	code = int(int32(binary.NativeEndian.Uint32(info[siStatus:])))
	if binary.NativeEndian.Uint32(info[siCode:]) != exited {
		code += hint.ExitSignal
	}
	return code, nil
}

// reported is the error of a step of the raw children.
func (k *keeper) reported() error {
	k.f.drop(k.reportW)
	k.reportW = -1
	rep, failed, err := raw.ReadReport(present{k.report})
	if err != nil || !failed {
		return nil //nolint:nilerr // then it came as far as its program
	}
	return k.explainStep(k.program.Error(rep))
}

// explainStep is explain in the words of a Dockerfile.
func (k *keeper) explainStep(e *raw.Error) error {
	command := k.launch.Command()
	err := explain(e, command)
	switch {
	case hint.Code(err) != hint.ExitNotFound || !errors.Is(e.Errno, unix.ENOENT):
		return err
	case command == "/bin/sh":
		return hint.Wrap(err, `the stage has no /bin/sh: use the JSON form, RUN ["COMMAND"], or name its shell by SHELL`)
	}
	return hint.Wrap(err, "is it in the stage? see the RUN, and the SHELL before it")
}

// explain finds out why pid 1 could not be let go.
func (k *keeper) explain(ctx context.Context, cause error) error {
	k.f.drop(k.reportW)
	k.reportW = -1
	// All that hold the other end are about to end.
	rep, failed, err := raw.ReadReport(k.report)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && failed {
		err := k.program.Error(rep)
		if errors.Is(err.Errno, unix.ECANCELED) {
			return cause
		}
		return k.explainStep(err)
	}
	return cause
}

// reap waits for the keeper's end, which is that of all.
func (k *keeper) reap() {
	if k.pid == 0 {
		return
	}
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(k.pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	k.pid = 0
}

func (k *keeper) close() {
	if k.maps != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = k.maps.Wait(ctx)
	}
	for _, f := range []*os.File{k.leash, k.status, k.report, k.output} {
		if f != nil {
			_ = f.Close()
		}
	}
	if k.launch != nil {
		k.launch.Close()
	}
	k.f.close()
}

// errKept says that the keeper went away without a word.
var errKept = errors.New("the command of the step was killed, with all that it started")
