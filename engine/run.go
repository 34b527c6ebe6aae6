package engine

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/monitor"
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
	h, err := e.create(ctx, o)
	if err != nil {
		return 0, err
	}
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
	s, err := e.launch(ctx, h, streams.Terminal, patience)
	if err != nil {
		return 0, err
	}
	defer s.close()
	code, running, err = s.attach(ctx, streams)
	lost := errors.Is(err, errLost)
	if err == nil || !running || lost {
		s.wait()
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

// launch starts a container in the first way that this host allows.
func (e *Engine) launch(ctx context.Context, h held, tty Terminal, patience time.Duration) (*started, error) {
	s, err := e.start(ctx, h, tty, patience)
	for refusesOverlay(err) {
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
	if h.Remove(h.cfg.Name) == nil {
		return
	}
	_ = e.stage(context.Background(), request{Remove: h.ID, Name: h.cfg.Name}, nil)
}

// errLost says that the monitor went away without a last word.
var errLost = errors.New("the container's monitor was killed, and the container with it")

// attach is the foreground: the streams there and back until the container
// ends.
func (s *started) attach(ctx context.Context, streams Streams) (code int, running bool, err error) {
	in := &sender{conn: s.control, window: frame.StdinWindow}
	in.room.L = &in.mu
	stop := context.AfterFunc(ctx, func() { _ = s.control.Close() })
	defer stop()
	signals := in.forwardSignals()
	defer signals.stop()
	defer in.forwardSize(streams.Terminal)()
	if streams.In != nil {
		go in.copy(streams.In)
	}
	out, errs := outlet{w: streams.Out}, outlet{w: streams.Err}
	defer out.close()
	defer errs.close()
	r := frame.NewReader(s.control)
	for {
		kind, payload, err := r.Next()
		switch {
		case ctx.Err() != nil:
			return 0, true, ctx.Err()
		case err != nil:
			return 0, running, errLost
		}
		switch kind {
		case frame.Hello:
			s.leaveStreams()
		case frame.Started:
			running = true
		case frame.Refused:
			var rep raw.Report
			if err := json.Unmarshal(payload, &rep); err != nil {
				return 0, false, fmt.Errorf("read the monitor's answer: %w", err)
			}
			return 0, false, s.explain(rep)
		case frame.Stdout:
			if out.write(payload) {
				in.send(frame.Unwanted, []byte{1})
			}
		case frame.Stderr:
			if errs.write(payload) {
				in.send(frame.Unwanted, []byte{2})
			}
		case frame.Taken:
			in.taken(payload)
		case frame.Ended:
			code, err := s.settle(payload, streams)
			return code, err == nil, err
		case frame.Exit:
			var status monitor.ExitStatus
			if err := json.Unmarshal(payload, &status); err != nil {
				return 0, true, fmt.Errorf("read the monitor's answer: %w", err)
			}
			return status.Code, true, nil
		}
	}
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

// outlet is where a stream of the container goes. A reader that is gone, as in
// `nook run x | head`, must not end this process (Go does that for a broken
// pipe on descriptors 1 and 2 unless SIGPIPE is asked for), which has a
// container to see to its end.
type outlet struct {
	w     io.Writer
	pipes chan os.Signal
	gone  bool
}

// write tells once that it found the reader gone.
func (o *outlet) write(data []byte) (gone bool) {
	if o.w == nil || o.gone {
		return false
	}
	if o.pipes == nil {
		o.pipes = make(chan os.Signal, 1)
		signal.Notify(o.pipes, unix.SIGPIPE)
	}
	_, err := o.w.Write(data)
	o.gone = err != nil
	return o.gone
}

// Write takes everything.
func (o *outlet) Write(data []byte) (int, error) {
	o.write(data)
	return len(data), nil
}

func (o *outlet) close() {
	if o.pipes != nil {
		signal.Stop(o.pipes)
	}
}

// sender is the way to the monitor.
type sender struct {
	mu     sync.Mutex
	conn   io.Writer
	room   sync.Cond
	window int
}

func (s *sender) send(k frame.Kind, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = frame.Write(s.conn, k, payload) // a monitor that is gone is seen by the reader
}

// copy sends standard input, never more ahead than the window.
func (s *sender) copy(in io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		for data := buf[:n]; len(data) > 0; {
			s.mu.Lock()
			for s.window == 0 {
				s.room.Wait()
			}
			part := min(len(data), s.window)
			s.window -= part
			_ = frame.Write(s.conn, frame.Stdin, data[:part])
			s.mu.Unlock()
			data = data[part:]
		}
		if err != nil {
			s.send(frame.StdinEOF, nil)
			return
		}
	}
}

func (s *sender) taken(payload []byte) {
	if len(payload) != 4 {
		return
	}
	s.mu.Lock()
	s.window += int(binary.BigEndian.Uint32(payload))
	s.mu.Unlock()
	s.room.Signal()
}

// forwarding passes signals of this process on to the container.
type forwarding struct {
	signals chan os.Signal
	done    chan struct{}
}

// allSignals is how long a command runs before it is worth to pass on every
// signal there is.
const allSignals = 50 * time.Millisecond

// forwardSignals passes on what this process gets. At first that is what a
// person or a supervisor sends: each signal that Go is asked for costs two
// switches of threads, a millisecond for them all, and as much to give them
// back.
func (s *sender) forwardSignals() *forwarding {
	f := &forwarding{make(chan os.Signal, 16), make(chan struct{})}
	signal.Notify(f.signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go f.run(s)
	return f
}

// all asks for the other signals too, but for what is about this process
// itself: its children, its terminal, its pipes, job control and Go's own.
func (f *forwarding) all() {
	for n := unix.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGWINCH, unix.SIGPIPE, unix.SIGURG,
			unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGPROF,
			32, 33: // the C library's
		default:
			signal.Notify(f.signals, n)
		}
	}
}

func (f *forwarding) run(s *sender) {
	more := time.NewTimer(allSignals)
	defer more.Stop()
	defer signal.Stop(f.signals)
	for {
		select {
		case <-f.done:
			return
		case <-more.C:
			f.all()
		case sig := <-f.signals:
			s.send(frame.Signal, []byte{byte(sig.(unix.Signal))})
		}
	}
}

func (f *forwarding) stop() { close(f.done) }

func (s *sender) forwardSize(t Terminal) (stop func()) {
	if t == nil {
		return func() {}
	}
	done := make(chan struct{})
	size := func() {
		if rows, cols, err := t.Size(); err == nil {
			payload := binary.BigEndian.AppendUint16(nil, rows)
			s.send(frame.Resize, binary.BigEndian.AppendUint16(payload, cols))
		}
	}
	size()
	go func() {
		for {
			select {
			case <-done:
				return
			case <-t.Resized():
				size()
			}
		}
	}()
	return func() { close(done) }
}
