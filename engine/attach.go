package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"nook/containers/monitor"
	"nook/internal/frame"
)

// ErrDetached says that the detach keys were typed: the process goes on
// without us.
var ErrDetached = errors.New("detached")

// talk is a conversation with a monitor about a process: its streams there and
// back.
type talk struct {
	conn    io.ReadWriteCloser
	frames  messages
	streams Streams
	in      *sender

	once     sync.Once
	detached chan struct{}
}

// messages are what a monitor says.
type messages interface {
	Next() (frame.Kind, []byte, error)
}

func newTalk(conn io.ReadWriteCloser, frames messages, streams Streams) *talk {
	t := &talk{conn: conn, frames: frames, streams: streams, detached: make(chan struct{})}
	t.in = &sender{conn: conn, window: frame.StdinWindow, keys: streams.DetachKeys, typed: t.detach}
	t.in.room.L = &t.in.mu
	return t
}

func (t *talk) detach() {
	t.once.Do(func() { close(t.detached) })
	_ = t.conn.Close()
}

func (t *talk) close() {
	_ = t.conn.Close()
	t.in.end()
}

// run carries the streams until the process ended, and returns its exit code.
// other sees every message that is not about the streams; over ends the
// conversation with what it returns.
func (t *talk) run(ctx context.Context, other func(frame.Kind, []byte) (over bool, code int, err error)) (code int, err error) {
	stop := context.AfterFunc(ctx, t.close)
	defer stop()
	if !t.streams.KeepSignals {
		signals := t.in.forwardSignals()
		defer signals.stop()
	}
	defer t.in.forwardSize(t.streams.Terminal)()
	if t.streams.In != nil {
		go t.in.copy(t.streams.In)
	}
	out, errs := outlet{w: t.streams.Out}, outlet{w: t.streams.Err}
	defer out.close()
	defer errs.close()
	for {
		kind, payload, err := t.frames.Next()
		select {
		case <-t.detached:
			return 0, ErrDetached
		default:
		}
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err != nil:
			return 0, errLost
		}
		switch kind {
		case frame.Stdout:
			if out.write(payload) {
				t.in.send(frame.Unwanted, []byte{1})
			}
			continue
		case frame.Stderr:
			if errs.write(payload) {
				t.in.send(frame.Unwanted, []byte{2})
			}
			continue
		case frame.Taken:
			t.in.taken(payload)
			continue
		}
		if other != nil {
			if over, code, err := other(kind, payload); over {
				return code, err
			}
		}
		if kind == frame.Exit {
			var status monitor.ExitStatus
			if err := json.Unmarshal(payload, &status); err != nil {
				return 0, fmt.Errorf("read the monitor's answer: %w", err)
			}
			return status.Code, nil
		}
	}
}

// untilSettled waits until the monitor is done with a container that ended:
// what follows finds its last state.
func (t *talk) untilSettled(ctx context.Context) {
	stop := context.AfterFunc(ctx, t.close)
	defer stop()
	for {
		if _, _, err := t.frames.Next(); err != nil {
			return
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
	over   bool // nobody takes anything any more
	spoke  bool // something was sent
	// keys end the conversation when they are typed.
	keys    []byte
	matched int
	typed   func()
}

func (s *sender) send(k frame.Kind, payload []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.spoke = true
	_ = frame.Write(s.conn, k, payload) // a monitor that is gone is seen by the reader
}

// hush lets nothing be sent any more, unless something was.
func (s *sender) hush() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = s.over || !s.spoke
	return !s.spoke
}

// copy sends standard input, never more ahead than the window.
func (s *sender) copy(in io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		input, detach := s.watch(buf[:n])
		for data := input; len(data) > 0; {
			s.mu.Lock()
			for s.window == 0 && !s.over {
				s.room.Wait()
			}
			if s.over {
				s.mu.Unlock()
				return
			}
			part := min(len(data), s.window)
			s.window -= part
			s.spoke = true
			_ = frame.Write(s.conn, frame.Stdin, data[:part])
			s.mu.Unlock()
			data = data[part:]
		}
		if detach {
			s.typed()
			return
		}
		if err != nil {
			s.send(frame.StdinEOF, nil)
			return
		}
	}
}

// watch looks for the detach keys. What may be their beginning is held back
// until it is known, as docker does.
func (s *sender) watch(data []byte) (input []byte, detach bool) {
	if len(s.keys) == 0 {
		return data, false
	}
	for _, b := range data {
		held := append(slices.Clone(s.keys[:s.matched]), b)
		for !bytes.HasPrefix(s.keys, held) {
			input, held = append(input, held[0]), held[1:]
		}
		if s.matched = len(held); s.matched == len(s.keys) {
			return input, true
		}
	}
	return input, false
}

// end lets who waits for room go.
func (s *sender) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.room.Broadcast()
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
