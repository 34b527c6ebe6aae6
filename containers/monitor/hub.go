package monitor

import (
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"nook/internal/frame"
)

// link is a connection to a client.
type link interface {
	io.ReadWriteCloser
	SetWriteDeadline(t time.Time) error
}

// client is who is attached to a hub.
type client struct {
	conn  link
	first bool         // it started the process
	gave  bool         // some standard input
	owed  atomic.Int64 // of its input, not written on yet
	// begun is closed when it has told that the container runs; nil: we tell.
	begun chan struct{}
	once  sync.Once // of closing it
}

// hub is between the streams of a process and those who are attached to it.
// Output goes to each of them, and waits for the slowest; one that went away is
// dropped.
type hub struct {
	// signal passes a signal on to the process.
	signal func(n int)
	// stdinOnce ends the input with the client that gave it.
	stdinOnce bool

	out sync.Mutex // one message after the other

	mu    sync.Mutex
	all   []*client
	input *stdio
}

// join attaches a client.
func (h *hub) join(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, c)
}

// serve obeys an attached client until it goes away, which is not the
// process's end.
func (h *hub) serve(c *client, frames *frame.Reader) {
	for {
		kind, payload, err := frames.Next()
		if err != nil || kind == frame.Stdin && c.owed.Add(int64(len(payload))) > frame.StdinWindow {
			break // gone, or no client of ours: it sends more than it may
		}
		h.obey(c, kind, payload)
	}
	h.leave(c)
	_ = c.conn.Close()
	if in := h.in(); in != nil && h.stdinOnce && c.gave {
		in.giveEOF()
	}
}

func (h *hub) obey(c *client, kind frame.Kind, payload []byte) {
	in := h.in()
	switch kind {
	case frame.Signal:
		if len(payload) == 1 {
			h.signal(int(payload[0]))
		}
		return
	case frame.Begun:
		if c.begun != nil {
			c.once.Do(func() { close(c.begun) })
		}
		return
	case frame.Unwanted:
		// Who attached later is no part of a pipeline with the container.
		if len(payload) == 1 && in != nil && c.first && h.alone() {
			in.unwanted(payload[0])
		}
		return
	}
	if in == nil { // between two runs of the entrypoint
		if kind == frame.Stdin {
			h.taken(c, len(payload))
		}
		return
	}
	switch kind {
	case frame.Stdin:
		c.gave = true
		if !in.give(payload, func(n int) { h.taken(c, n) }) {
			h.taken(c, len(payload))
		}
	case frame.StdinEOF:
		c.gave = true
		if h.stdinOnce {
			in.giveEOF()
		}
	case frame.Resize:
		in.resize(payload)
	}
}

// taken tells a client how much of its input was written on.
func (h *hub) taken(c *client, n int) {
	c.owed.Add(-int64(n))
	h.out.Lock()
	defer h.out.Unlock()
	if frame.Write(c.conn, frame.Taken, binary.BigEndian.AppendUint32(nil, uint32(n))) != nil {
		h.leave(c)
	}
}

func (h *hub) in() *stdio {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.input
}

// feed makes in what the clients' input goes to; nil: nothing.
func (h *hub) feed(in *stdio) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.input = in
}

func (h *hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, have := range h.all {
		if have == c {
			h.all = append(h.all[:i:i], h.all[i+1:]...)
			if c.begun == nil { // its last word may still be read
				_ = c.conn.Close()
			}
			return
		}
	}
}

// alone tells whether there is one client only.
func (h *hub) alone() bool { return len(h.clients()) == 1 }

func (h *hub) clients() []*client {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*client(nil), h.all...)
}

// send writes a message to every client. It tells whether any is there.
func (h *hub) send(k frame.Kind, payload []byte) bool {
	h.out.Lock()
	defer h.out.Unlock()
	sent := false
	for _, c := range h.clients() {
		if frame.Write(c.conn, k, payload) != nil {
			h.leave(c)
			continue
		}
		sent = true
	}
	return sent
}

func (h *hub) tell(k frame.Kind, v any) bool { return h.send(k, encode(v)) }

// hurry gives those who take no output one more second: somebody else waits
// for the end.
func (h *hub) hurry() {
	for _, c := range h.clients() {
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	}
}

func (h *hub) end() {
	for _, c := range h.clients() {
		h.leave(c)
	}
}
