package engine

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/namespaces"
)

// child is a raw child in a user namespace with the data root's ids, in which
// it is root.
type child struct {
	pid     int
	program *raw.Program
	report  *os.File
}

// fork starts steps in new namespaces, CLONE_NEWUSER among them. Its id maps
// are written before the first step runs.
func (e *Engine) fork(ctx context.Context, flags uintptr, steps func(*raw.Program)) (*child, error) {
	var f fds
	defer f.close()
	reportR, reportW := f.pipe()
	mapsR, mapsW := f.pipe()
	if f.err != nil {
		return nil, f.err
	}
	p := raw.New(raw.DefaultSize)
	if e.ids.SelfMapped() {
		e.ids.MapSelf(p)
	} else {
		p.Call("close the writing end", unix.SYS_CLOSE, mapsW)
		p.Wait("wait for the id maps", mapsR)
	}
	steps(p)
	pid, err := p.Start(flags, reportW)
	if err != nil {
		p.Close()
		return nil, namespaces.Explain(err)
	}
	c := &child{pid, p, os.NewFile(uintptr(f.take(reportR)), "report")}
	if e.ids.SelfMapped() {
		return c, nil
	}
	err = e.ids.WriteMaps(ctx, pid)
	if err == nil {
		_, err = unix.Write(mapsW, []byte{1})
	}
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		c.wait()
		return nil, err
	}
	return c, nil
}

// refused waits until the child executed something, or ended, and returns the
// error of the step that it could not do.
func (c *child) refused() error {
	rep, failed, err := raw.ReadReport(c.report)
	if err != nil || !failed {
		return err
	}
	return c.program.Error(rep)
}

// wait reaps the child and gives its memory back.
func (c *child) wait() unix.WaitStatus {
	defer c.program.Close()
	defer c.report.Close()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(c.pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			return ws
		}
	}
}

// try runs steps in new namespaces and returns the error of the first that
// met one. Nothing stays of it.
func (e *Engine) try(ctx context.Context, flags uintptr, steps func(*raw.Program)) error {
	c, err := e.fork(ctx, flags, func(p *raw.Program) {
		if steps != nil {
			steps(p)
		}
		p.Call("end", unix.SYS_EXIT_GROUP, 0)
	})
	if err != nil {
		return err
	}
	defer c.wait()
	return c.refused()
}
