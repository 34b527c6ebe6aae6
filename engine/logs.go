package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/logs"
	"nook/internal/hint"
)

// ErrLogGone says that a container's log is there no more.
var ErrLogGone = errors.New("the log file is gone")

// LogsOptions is what docker's users know as the flags of logs.
type LogsOptions struct {
	// Follow goes on until the container no longer runs.
	Follow bool
	// Timestamps puts the time of each line before it, in UTC with nine digits
	// of a second, and a space.
	Timestamps bool
	// Tail is how many lines from the end; negative: all.
	Tail int
	// Since and Until bound when a line was written; zero: no bound. With
	// Follow, Until may be in the future: then that is the end.
	Since, Until time.Time
	// Stdout and Stderr get what the container wrote there; with a terminal
	// all is on Stdout. Nil: it is left out.
	Stdout, Stderr io.Writer
}

// Logs copies the output that a container left, found by name, id or unique
// prefix of an id: without Timestamps the very bytes, in the order of each
// stream. It reads files and needs no running monitor. A container that wrote
// nothing has an empty log, and of one that a power cut ended, what is whole is
// copied.
//
// With Follow no byte is lost however slow the writers are: the log's files
// are kept until they are read, also beyond the limits of the log. When that
// fills the disk they are deleted all the same, and the error is logs.ErrGap.
// Of a container whose removal overtakes a follower by more than 200 files of
// the log, the rest is lost.
//
// A line that no nook wrote is logs.ErrBroken; what stands before it is
// copied.
func (e *Engine) Logs(ctx context.Context, nameOrID string, o LogsOptions) error {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return err
	}
	if logGone(ctx, ct) {
		return hint.Errorf("what the container writes from now on is kept again",
			"logs of container %s: %w: somebody removed it", nameOrID, ErrLogGone)
	}
	r, err := logs.NewReader(ct.Path, logs.DefaultLimits(), logs.ReadOptions{
		Tail: o.Tail, Since: o.Since, Until: o.Until, Timestamps: o.Timestamps, Follow: o.Follow,
	})
	if err == nil {
		if o.Follow {
			err = follow(ctx, ct, r, o)
		} else {
			err = r.Copy(ctx, o.Stdout, o.Stderr)
		}
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		return explainLog(fmt.Errorf("logs of container %s: %w", nameOrID, err))
	}
	return nil
}

// logGone tells whether a container has no log any more. Every run makes one,
// a moment after it is told as begun.
func logGone(ctx context.Context, ct containers.Container) bool {
	for late := time.Now().Add(endTime); ; {
		state, err := ct.State()
		if err != nil || state.Started.IsZero() || !logs.Lost(ct.Path) {
			return false
		}
		if !state.Status.Live() || time.Since(state.Started) > holdTime || !state.Starting && time.Now().After(late) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(holdStep):
		}
	}
}

func explainLog(err error) error {
	switch {
	case errors.Is(err, logs.ErrGap):
		return hint.Wrap(err, "free some space, or read faster; nook logs shows what is left")
	case errors.Is(err, logs.ErrBroken):
		return hint.Wrap(err, "--tail or --since may begin behind it; the file can be read as text")
	}
	return err
}

// follow copies until the container's end.
func follow(ctx context.Context, ct containers.Container, r *logs.Reader, o LogsOptions) error {
	w := logs.NewWatch(ct.Path, r.Ahead)
	defer w.Close()
	var (
		owner containers.Process
		look  = make(chan struct{}, 1)
		stop  = func() {}
	)
	defer func() { stop() }()
	for check := true; ; {
		// Whether it runs is asked first: what was written before its end is
		// then read in any case.
		ended := false
		if check {
			state, err := ct.State()
			if err != nil {
				return err
			}
			ended = !state.Status.Live() || !o.Until.IsZero() && time.Now().After(o.Until)
			if state.Monitor != owner {
				stop()
				owner = state.Monitor
				stop = awaitEnd(owner, look, unix.PidfdOpen)
			}
		}
		if err := r.Copy(ctx, o.Stdout, o.Stderr); err != nil || ended || r.Done() {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.C:
			check = w.Changed()
		case <-look:
			check = true
		case <-after(o.Until):
			check = true
		}
	}
}

// after is a channel that gets a value once t has passed; nil for none.
func after(t time.Time) <-chan time.Time {
	if t.IsZero() {
		return nil
	}
	return time.After(time.Until(t) + time.Millisecond)
}

// lookEvery is how often a process is looked at where there are no pidfds.
const lookEvery = time.Second

// awaitEnd sends to look when a process has ended: a monitor that was killed
// writes no last state. Where the host gives no pidfd it sends every second.
func awaitEnd(p containers.Process, look chan<- struct{}, pidfdOpen func(pid, flags int) (int, error)) (stop func()) {
	send := func() {
		select {
		case look <- struct{}{}:
		default:
		}
	}
	if p.Pid <= 0 {
		return func() {}
	}
	fd, err := pidfdOpen(p.Pid, unix.PIDFD_NONBLOCK)
	if !p.Alive() { // or it has the pid of one that was
		send()
	}
	if err != nil {
		quit := make(chan struct{})
		go every(lookEvery, quit, send)
		return func() { close(quit) }
	}
	f := os.NewFile(uintptr(fd), "monitor")
	go func() {
		if awaitReadable(f) {
			send()
		}
	}()
	return func() { _ = f.Close() }
}

func every(d time.Duration, quit <-chan struct{}, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
			do()
		}
	}
}

// awaitReadable waits in Go's poller; false: f was closed. A pidfd is readable
// when its process has ended (pidfd_open(2)).
func awaitReadable(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	return err == nil
}
