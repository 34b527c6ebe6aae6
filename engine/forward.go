package engine

import (
	"encoding/binary"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/frame"
)

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
