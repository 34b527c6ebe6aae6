package monitor

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers/logs"
	"nook/internal/fdpass"
	"nook/internal/frame"
)

// stdio are the monitor's ends of a process's standard streams.
type stdio struct {
	out, err *os.File // nil for none
	tty      *os.File // instead of the three others

	pumped sync.WaitGroup

	mu  sync.Mutex
	in  *os.File
	fed sync.Cond
	buf []piece
	eof bool
	end bool
}

// piece is input that waits to be written on.
type piece struct {
	data  []byte
	taken func(n int)
}

// newStdio takes the ends over; nil for none.
func newStdio(in, out, err *os.File) *stdio {
	s := &stdio{in: in, out: out, err: err}
	s.begin()
	return s
}

// newTerminal receives a terminal from the process that made it; without one
// the process never got so far, and its report says why.
func newTerminal(sock *os.File) *stdio {
	s := &stdio{}
	if tty, err := fdpass.Receive(sock, "terminal"); err == nil {
		s.tty, s.in = tty, tty
	}
	_ = sock.Close()
	s.begin()
	return s
}

func (s *stdio) begin() {
	s.fed.L = &s.mu
	if s.in != nil {
		go s.feed()
	}
}

// pump copies the output to the log, where there is one, and to the hub, until
// its end.
func (s *stdio) pump(h *hub, log *logs.Writer) {
	if s.tty != nil {
		s.copy(s.tty, h, frame.Stdout, log, logs.Stdout)
		return
	}
	s.copy(s.out, h, frame.Stdout, log, logs.Stdout)
	s.copy(s.err, h, frame.Stderr, log, logs.Stderr)
}

const pumpSize = 64 << 10

func (s *stdio) copy(f *os.File, h *hub, kind frame.Kind, record *logs.Writer, stream logs.Stream) {
	if f == nil {
		return
	}
	s.pumped.Add(1)
	go func() {
		defer s.pumped.Done()
		// Small at first: most containers say little, and there are hundreds.
		buf := make([]byte, 4<<10)
		for {
			n, err := f.Read(buf)
			if n > 0 {
				if record != nil {
					// A log that can't be written, as on a full disk, is no
					// reason to stop the container.
					_ = record.Write(stream, buf[:n])
				}
				h.send(kind, buf[:n])
			}
			if n == len(buf) && n < pumpSize {
				buf = make([]byte, pumpSize)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.drain(f, buf, func(data []byte) { h.send(kind, data) })
				return
			}
			if err != nil { // EOF, or EIO from a terminal
				return
			}
		}
	}()
}

// finish ends the pumps of a process that ended while others may still hold
// its streams: what it wrote is in the pipes.
func (s *stdio) finish() {
	for _, f := range []*os.File{s.out, s.err, s.tty} {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	}
	s.pumped.Wait()
}

// drain reads what is there without waiting.
func (s *stdio) drain(f *os.File, buf []byte, take func([]byte)) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			take(buf[:n])
		}
	})
}

// close closes all ends.
func (s *stdio) close() {
	s.ended()
	for _, f := range []*os.File{s.out, s.err, s.tty} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// give queues input; false when nobody takes any. The clients' window bounds
// the queue.
func (s *stdio) give(data []byte, taken func(n int)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil || s.end || s.eof {
		return false
	}
	s.buf = append(s.buf, piece{append([]byte(nil), data...), taken})
	s.fed.Signal()
	return true
}

// giveEOF closes the process's stdin once the queue is written.
func (s *stdio) giveEOF() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tty != nil { // a terminal has no end of file but ^D
		return
	}
	s.eof = true
	s.fed.Signal()
}

// ended drops what nobody will read.
func (s *stdio) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
	s.fed.Signal()
}

func (s *stdio) feed() {
	for {
		s.mu.Lock()
		for len(s.buf) == 0 && !s.eof && !s.end {
			s.fed.Wait()
		}
		if s.end || len(s.buf) == 0 {
			closing := s.tty == nil
			s.mu.Unlock()
			if closing {
				_ = s.in.Close()
			}
			return
		}
		next := s.buf[0]
		s.buf = s.buf[1:]
		s.mu.Unlock()
		_, _ = s.in.Write(next.data) // EPIPE: the process closed it
		next.taken(len(next.data))
	}
}

// unwanted closes our end of a stream, so that the process learns that its
// reader is gone as it would in a pipeline: by SIGPIPE.
func (s *stdio) unwanted(stream byte) {
	switch {
	case s.tty != nil:
	case stream == 1 && s.out != nil:
		_ = s.out.Close()
	case stream == 2 && s.err != nil:
		_ = s.err.Close()
	}
}

func (s *stdio) resize(payload []byte) {
	if s.tty == nil || len(payload) != 4 {
		return
	}
	size := unix.Winsize{Row: binary.BigEndian.Uint16(payload), Col: binary.BigEndian.Uint16(payload[2:])}
	conn, err := s.tty.SyscallConn() // File.Fd would make it blocking
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) })
}
