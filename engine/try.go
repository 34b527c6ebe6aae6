package engine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/namespaces"
)

// try runs steps in new namespaces, in which the caller is root, and returns
// the error of the first step that met one. Nothing stays of it.
func (e *Engine) try(ctx context.Context, flags uintptr, steps func(*raw.Program)) error {
	var f fds
	defer f.close()
	reportR, reportW := f.pipe()
	mapsR, mapsW := f.pipe()
	if f.err != nil {
		return f.err
	}
	p := raw.New(raw.DefaultSize)
	defer p.Close()
	if e.ids.SelfMapped() {
		e.ids.MapSelf(p)
	} else {
		p.Call("close the writing end", unix.SYS_CLOSE, mapsW)
		p.Wait("wait for the id maps", mapsR)
	}
	if steps != nil {
		steps(p)
	}
	p.Call("end", unix.SYS_EXIT_GROUP, 0)
	pid, err := p.Start(flags, reportW)
	if err != nil {
		return namespaces.Explain(err)
	}
	f.drop(reportW)
	defer func() {
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
				return
			}
		}
	}()
	if !e.ids.SelfMapped() {
		if err := e.ids.WriteMaps(ctx, pid); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			return err
		}
		if _, err := unix.Write(mapsW, []byte{1}); err != nil {
			return fmt.Errorf("try: %w", err)
		}
	}
	report := os.NewFile(uintptr(f.take(reportR)), "report")
	defer report.Close()
	rep, refused, err := raw.ReadReport(report)
	if err != nil || !refused {
		return err
	}
	return p.Error(rep)
}
