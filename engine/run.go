package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/events"
	"nook/internal/frame"
	"nook/internal/hint"
	"nook/internal/raw"
)

// Run creates a container, runs it in the foreground and returns its exit
// code. A container that could not be started is removed again.
//
// Signals that reach this process are passed on. A ctx that ends leaves the
// container running: it belongs to its monitor.
func (e *Engine) Run(ctx context.Context, o RunOptions, streams Streams) (code int, err error) {
	o.started = true
	y, err := e.early(&containers.Config{Network: o.Network, Init: o.Init, OpenStdin: o.Interactive, TTY: o.TTY}, o.Leash)
	if err != nil {
		return 0, err
	}
	h, err := e.create(ctx, o)
	if err != nil {
		y.abort()
		return 0, err
	}
	h.early = y
	defer h.lock.Release()
	running := false
	defer func() {
		if err != nil && (!running || h.cfg.Remove && errors.Is(err, errLost)) {
			e.remove(h)
			if o.CIDFile != "" {
				_ = os.Remove(o.CIDFile)
			}
		}
	}()
	patient := patience
	if streams.Started != nil {
		patient = 0 // somebody waits for the beginning, not for the end
	}
	s, err := e.launch(ctx, h, streams.Terminal, patient)
	if err != nil {
		return 0, err
	}
	defer s.close()
	code, running, err = s.attach(ctx, streams)
	if s.settled {
		e.wholeLife(h.cfg, s.began, code)
	}
	lost := errors.Is(err, errLost)
	if err == nil && !h.cfg.Restart.Wanted() || err != nil && !running || lost {
		s.wait()
	} else {
		reap(s)
	}
	if err == nil && h.cfg.Remove && exists(h.Path) {
		e.remove(h) // its monitor was killed after its last word
	}
	if lost {
		// Its last word may have been that it runs: what it wrote stays, but
		// with --rm.
		state, serr := h.State()
		running = !h.cfg.Remove && (running || serr == nil && state.Status != containers.Created)
		err = hint.Wrap(err, "somebody killed it, or the kernel did for want of memory: see dmesg")
	}
	return code, err
}

// wholeLife tells the events of a container whose monitor never started.
func (e *Engine) wholeLife(cfg *containers.Config, began time.Time, code int) {
	tell := func(action string, more ...string) events.Event {
		return events.Container(action, cfg.ID, cfg.Name, cfg.Image, cfg.Labels, more...)
	}
	start := tell("start")
	start.Time, start.TimeNano = began.Unix(), began.UnixNano()
	_ = events.Append(e.root, start, tell("die", "exitCode", strconv.Itoa(code)), tell("destroy"))
}

// launch starts a container in the first way that this host allows.
func (e *Engine) launch(ctx context.Context, h held, tty Terminal, patience time.Duration) (*started, error) {
	s, err := e.start(ctx, h, tty, patience)
	const ways = 3 // overlay on the disk, overlay on a tmpfs, a copy
	for tried := 1; tried < ways && refusesOverlay(err); tried++ {
		if err = e.stepDown(ctx, h, err); err == nil {
			s, err = e.start(ctx, h, tty, patience)
		}
	}
	return s, err
}

// remove removes a container that never ran. Overlayfs has left directories
// in its work directory that only the user namespace's root can enter. What
// went wrong before is told, not what goes wrong here.
func (e *Engine) remove(h held) {
	defer h.lock.Release()
	if h.DropVolumes(h.cfg) == nil && h.Remove(h.cfg.Name) == nil {
		return
	}
	_ = e.stage(context.Background(), request{Remove: []removal{{h.ID, h.cfg.Name, true}}}, nil)
}

// errLost says that the monitor went away without a last word.
var errLost = errors.New("the container's monitor was killed, and the container with it")

// attach is the foreground: the streams there and back until the container
// ends.
func (s *started) attach(ctx context.Context, streams Streams) (code int, running bool, err error) {
	t := newTalk(s.control, frame.NewReader(s.control), streams)
	defer t.close()
	began := func() {
		running = true
		if streams.Started != nil {
			streams.Started(s.container.ID)
			streams.Started = nil
		}
	}
	code, err = t.run(ctx, func(kind frame.Kind, payload []byte) (over bool, code int, err error) {
		switch kind {
		case frame.Hello:
			s.leaveStreams()
		case frame.Started, frame.Exit:
			began()
		case frame.Refused:
			var rep raw.Report
			if err := json.Unmarshal(payload, &rep); err != nil {
				return true, 0, fmt.Errorf("read the monitor's answer: %w", err)
			}
			return true, 0, s.explain(rep)
		case frame.Ended:
			if !t.in.hush() {
				return false, 0, nil // it hears what was sent, and starts after all
			}
			code, err := s.settle(payload, streams)
			running = err == nil
			return true, code, err
		}
		return false, 0, nil
	})
	if ctx.Err() != nil || errors.Is(err, ErrDetached) {
		running = true
	}
	return code, running, err
}

// settle ends a container whose monitor never had to start: its output is in
// the pipes, and it is removed here. One that wrote files is left to the
// monitor, which starts when nobody answers it: they belong to its ids.
func (s *started) settle(siginfo []byte, streams Streams) (code int, err error) {
	const (
		siCode, siStatus = 8, 24 // offsets in siginfo_t, on all 64 bit machines
		exited           = 1     // CLD_EXITED
	)
	if len(siginfo) < siStatus+4 {
		return 0, errLost
	}
	code = int(int32(binary.NativeEndian.Uint32(siginfo[siStatus:])))
	if binary.NativeEndian.Uint32(siginfo[siCode:]) != exited {
		code += hint.ExitSignal
	}
	if err = s.reported(); err == nil {
		drain(s.stdout, streams.Out)
		drain(s.stderr, streams.Err)
		if !s.container.RemoveUnwritten(s.name) {
			_ = s.control.Close()
			return code, nil
		}
		s.settled = true
	}
	// A monitor that is gone is one less to wait for.
	_ = frame.Write(s.control, frame.Done, nil)
	return code, err
}

// drain copies what is left in a pipe that nobody writes to any more, but
// whose writing end the waiting monitor still holds: there is no end of file.
func drain(from *os.File, to io.Writer) {
	out := outlet{w: to}
	defer out.close()
	_, _ = io.Copy(&out, present{from})
}

// present reads what is in a non-blocking pipe now: where a read would wait
// is its end.
type present struct{ *os.File }

func (p present) Read(buf []byte) (n int, err error) {
	conn, err := p.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failure error
	err = conn.Read(func(fd uintptr) bool {
		for {
			n, failure = unix.Read(int(fd), buf)
			if !errors.Is(failure, unix.EINTR) {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case errors.Is(failure, unix.EAGAIN), failure == nil && n == 0:
		return 0, io.EOF
	case failure != nil:
		return 0, failure
	}
	return n, nil
}

// WriteTo hides os.File's, which would wait.
func (p present) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{p})
}

// leaveStreams closes our copies of the container's streams, which belong to
// a monitor that started: with them open, the container would not learn that
// nobody reads any more.
func (s *started) leaveStreams() {
	for _, f := range []**os.File{&s.stdout, &s.stderr} {
		if *f != nil {
			_ = (*f).Close()
			*f = nil
		}
	}
}

// firstWord reads until the monitor refuses; nil when it says something else.
func (s *started) firstWord() error {
	r := frame.NewReader(s.control)
	for {
		kind, payload, err := r.Next()
		var rep raw.Report
		switch {
		case err != nil, kind == frame.Started, kind == frame.Ended:
			return nil //nolint:nilerr // whoever asks has another place to look
		case kind == frame.Refused && json.Unmarshal(payload, &rep) == nil:
			return s.explain(rep)
		}
	}
}
