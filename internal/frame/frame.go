// Package frame carries typed messages over a stream, as the control protocol
// of a monitor does:
//
//	type (1 byte)  length (4 bytes, big endian)  payload
//
//	err := frame.Write(conn, frame.Stdout, data)
//	kind, payload, err := frame.NewReader(conn).Next()
//
// It knows nothing of what the messages mean but their names, which stand
// here so that both ends agree.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Version is the protocol's: a monitor tells its own in Hello. A newer client
// speaks the monitor's.
const Version = 1

// Kind is the type of a message. Numbers are never used again for another
// meaning.
type Kind byte

// Messages from the monitor.
const (
	Hello   Kind = 1 // JSON {version}
	Started Kind = 2 // the entrypoint runs
	Refused Kind = 3 // JSON {step, errno}: the entrypoint could not be started
	Stdout  Kind = 4 // bytes
	Stderr  Kind = 5 // bytes
	Exit    Kind = 6 // JSON {code}: the container ended, and its output was sent
	Taken   Kind = 7 // 4 bytes, big endian: so many bytes of Stdin were written on
)

// Ended is sent in place of all others by a monitor that never had to start:
// the container is over. The payload is the siginfo_t of waitid(2). What it
// wrote is still in its pipes. The client answers with Done and the monitor
// goes; or it closes the connection, and the monitor starts and does what is
// left to do.
const Ended Kind = 8

// Result answers a Request: JSON, containers.Result.
const Result Kind = 9

// Messages to the monitor.
const (
	Stdin    Kind = 32 // bytes
	StdinEOF Kind = 33
	Signal   Kind = 34 // 1 byte: the number
	Resize   Kind = 35 // rows, columns: 2 bytes each, big endian
	Done     Kind = 36 // the answer to Ended: nothing is left to do
	Unwanted Kind = 37 // 1 byte, 1 or 2: nobody reads this stream any more
	Request  Kind = 38 // JSON, containers.Request: the first message of a client
	Begun    Kind = 39 // from the first client: it has told that the container runs
)

// StdinWindow is how many bytes of Stdin a client may send ahead of Taken, so
// that a container that doesn't read keeps no signal from getting through.
const StdinWindow = 256 << 10

// MaxPayload is the longest payload, in bytes. A longer one is a broken peer.
const MaxPayload = 1 << 20

// ErrTooLong says that a peer announced more than MaxPayload.
var ErrTooLong = errors.New("frame is too long")

const headerSize = 5

// Write sends one message in one write(2).
func Write(w io.Writer, k Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("frame of %d bytes: %w", len(payload), ErrTooLong)
	}
	b := make([]byte, headerSize+len(payload))
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	copy(b[headerSize:], payload)
	_, err := w.Write(b)
	return err
}

// Reader reads messages.
type Reader struct {
	r   io.Reader
	buf []byte
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next reads a message. The payload is valid until the next call. io.EOF is
// the end between two messages, io.ErrUnexpectedEOF one within.
func (r *Reader) Next() (Kind, []byte, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("frame of %d bytes: %w", n, ErrTooLong)
	}
	if int(n) > cap(r.buf) {
		r.buf = make([]byte, n)
	}
	payload := r.buf[:n]
	if _, err := io.ReadFull(r.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(h[0]), payload, nil
}
