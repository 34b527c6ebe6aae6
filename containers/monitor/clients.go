package monitor

import (
	"encoding/binary"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"nook/internal/frame"
)

// clients are all who are attached. Output goes to each of them; one that
// went away is dropped at the next write.
type clients struct {
	mu    sync.Mutex
	conns []io.ReadWriteCloser
	input *stdio
}

// add greets a client and serves it.
func (c *clients) add(conn io.ReadWriteCloser) {
	if err := frame.Write(conn, frame.Hello, encode(map[string]int{"version": frame.Version})); err != nil {
		_ = conn.Close()
		return
	}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	go c.serve(conn)
}

// taken tells the clients how much of their input was written on.
func (c *clients) taken(n int) {
	c.send(frame.Taken, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// serve obeys a client until it goes away. Its going away is not the
// container's end.
func (c *clients) serve(conn io.Reader) {
	r := frame.NewReader(conn)
	for {
		kind, payload, err := r.Next()
		if err != nil {
			return
		}
		switch kind {
		case frame.Stdin:
			c.input.give(payload)
		case frame.StdinEOF:
			c.input.giveEOF()
		case frame.Signal:
			if len(payload) == 1 {
				_ = unix.Kill(child, unix.Signal(payload[0]))
			}
		case frame.Resize:
			c.input.resize(payload)
		case frame.Unwanted:
			if len(payload) == 1 && c.alone() {
				c.input.unwanted(payload[0])
			}
		}
	}
}

// alone tells whether there is one client only.
func (c *clients) alone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns) == 1
}

// send writes a message to every client. It tells whether any is there.
func (c *clients) send(k frame.Kind, payload []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.conns[:0]
	for _, conn := range c.conns {
		if err := frame.Write(conn, k, payload); err != nil {
			_ = conn.Close()
			continue
		}
		kept = append(kept, conn)
	}
	c.conns = kept
	return len(kept) > 0
}

func (c *clients) tell(k frame.Kind, v any) bool { return c.send(k, encode(v)) }

func (c *clients) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}
