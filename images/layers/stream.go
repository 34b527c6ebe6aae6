package layers

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// stream unpacks ahead of its reader, and hashes beside it:
//
//	decoder ──chunk──┬──> reader (Read)
//	                 └──> hasher
//
// A chunk goes back to the decoder when both are done with it, so there are
// never more than chunks of them.
type stream struct {
	kind Compression
	// limit is the decoder's goroutine's alone.
	limit *fuse
	free  chan *chunk
	read  chan *chunk
	stop  chan struct{}

	// held is what Read is in the middle of.
	held *chunk
	rest []byte
	err  error

	digest hash.Hash
	hashed chan struct{} // closed when the hasher has seen everything
	ended  chan struct{} // closed when the decoder's goroutine is gone
	close  sync.Once
}

const (
	chunkSize = 256 << 10
	chunks    = 12
)

type chunk struct {
	data []byte
	err  error // after data; io.EOF at the end
	uses atomic.Int32
}

// newStream begins to unpack. limit may be nil.
func newStream(decoder io.Reader, kind Compression, limit *fuse, closeDecoder func(), hashing bool) *stream {
	s := &stream{
		kind:   kind,
		limit:  limit,
		free:   make(chan *chunk, chunks),
		read:   make(chan *chunk, chunks),
		stop:   make(chan struct{}),
		hashed: make(chan struct{}),
		ended:  make(chan struct{}),
	}
	for range chunks {
		s.free <- new(chunk)
	}
	var toHash chan *chunk
	if hashing {
		s.digest = sha256.New()
		toHash = make(chan *chunk, chunks)
		go s.hash(toHash)
	}
	go func() {
		defer close(s.ended)
		defer closeDecoder()
		s.decode(decoder, toHash)
	}()
	return s
}

func (s *stream) decode(decoder io.Reader, toHash chan<- *chunk) {
	if toHash != nil {
		defer close(toHash)
	}
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-s.stop:
			return
		}
		if c.data == nil {
			c.data = make([]byte, chunkSize)
		}
		n, err := fill(decoder, c.data[:chunkSize])
		if s.limit != nil && (err == nil || errors.Is(err, io.EOF)) {
			if tooMuch := s.limit.grown(n); tooMuch != nil {
				err = tooMuch
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			err = packedError(s.kind, err)
		}
		c.data, c.err = c.data[:n], err
		c.uses.Store(1)
		if toHash != nil {
			c.uses.Store(2)
			toHash <- c // never blocks: it has room for every chunk
		}
		s.read <- c
		if err != nil {
			return
		}
	}
}

// fill reads until p is full. io.ReadFull would make the same error of a plain
// end and of a packed stream that is cut off.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

func (s *stream) hash(chunks <-chan *chunk) {
	defer close(s.hashed)
	for c := range chunks {
		s.digest.Write(c.data)
		s.release(c)
	}
}

func (s *stream) release(c *chunk) {
	if c.uses.Add(-1) == 0 {
		c.data = c.data[:0]
		s.free <- c // never blocks: it has room for every chunk
	}
}

func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.held != nil {
			s.release(s.held)
			s.held = nil
		}
		select {
		case s.held = <-s.read:
			s.rest, s.err = s.held.data, s.held.err
		case <-s.stop:
			s.err = io.ErrClosedPipe
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends the decoder's goroutine and waits for it, so that the reader
// below is nobody's when it returns.
func (s *stream) Close() error {
	s.close.Do(func() { close(s.stop) })
	<-s.ended
	return nil
}

// diffID is the digest of what was unpacked, once Read has given io.EOF.
func (s *stream) diffID() string {
	<-s.hashed
	return "sha256:" + hex.EncodeToString(s.digest.Sum(nil))
}
