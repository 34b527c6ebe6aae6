package monitor

import (
	"encoding/binary"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/logs"
	"nook/internal/fdpass"
	"nook/internal/frame"
)

// stdio are the monitor's ends of the container's standard streams.
type stdio struct {
	out, err *os.File
	tty      *os.File // instead of the three others

	mu  sync.Mutex
	in  *os.File
	fed sync.Cond
	buf [][]byte
	eof bool
	end bool
	// taken is told how many bytes of a client's stdin were written on.
	taken func(n int)
}

func openStdio(cfg *containers.Config, taken func(int)) *stdio {
	s := &stdio{taken: taken}
	s.fed.L = &s.mu
	if cfg.TTY {
		// The terminal comes when pid 1 made it; without one it never
		// started, and its report says why.
		sock := os.NewFile(fdTTY, "pid 1")
		if tty, err := fdpass.Receive(sock, "terminal"); err == nil {
			s.tty, s.in = tty, tty
		}
		_ = sock.Close()
	} else {
		s.out, s.err = os.NewFile(fdStdout, "stdout"), os.NewFile(fdStderr, "stderr")
		if cfg.OpenStdin {
			s.in = os.NewFile(fdStdin, "stdin")
		}
	}
	if s.in != nil {
		go s.feed()
	}
	return s
}

// pump copies the output to the log and to the clients until its end.
func (m *monitor) pump() *sync.WaitGroup {
	var wg sync.WaitGroup
	start := func(f *os.File, kind frame.Kind, stream logs.Stream) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := make([]byte, 64<<10)
			for {
				n, err := f.Read(buf)
				if n > 0 {
					m.clients.send(kind, buf[:n])
					// A log that can't be written, as on a full disk, is no
					// reason to stop the container.
					_ = m.log.Write(stream, buf[:n])
				}
				if err != nil { // EOF, or EIO from a terminal
					return
				}
			}
		}()
	}
	if m.io.tty != nil {
		start(m.io.tty, frame.Stdout, logs.Stdout)
		return &wg
	}
	start(m.io.out, frame.Stdout, logs.Stdout)
	start(m.io.err, frame.Stderr, logs.Stderr)
	return &wg
}

// give queues input. The clients' window bounds the queue.
func (s *stdio) give(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil || s.end {
		return
	}
	s.buf = append(s.buf, append([]byte(nil), data...))
	s.fed.Signal()
}

// giveEOF closes the container's stdin once the queue is written.
func (s *stdio) giveEOF() {
	s.mu.Lock()
	defer s.mu.Unlock()
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
		data := s.buf[0]
		s.buf = s.buf[1:]
		s.mu.Unlock()
		if _, err := s.in.Write(data); err != nil { // EPIPE: the container closed it
			continue
		}
		s.taken(len(data))
	}
}

// unwanted closes our end of a stream, so that the container learns that its
// reader is gone as it would in a pipeline: by SIGPIPE.
func (s *stdio) unwanted(stream byte) {
	switch {
	case s.tty != nil:
	case stream == 1:
		_ = s.out.Close()
	case stream == 2:
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
