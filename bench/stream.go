package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// stream is an endless text in lines of one length, no two of them alike. Who
// knows the length can tell every byte of it, which is how a loss is seen: to
// compare costs much less time than a checksum.
type stream struct {
	line   []byte
	number uint64
	rest   []byte // of line, not yet read
}

// stampLength is that of a line's number.
const stampLength = 16

func newStream(line int) *stream {
	s := &stream{line: make([]byte, line)}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ."
	x := uint32(1)
	for i := range s.line {
		x = x*1664525 + 1013904223 // Numerical Recipes' generator
		s.line[i] = letters[x>>26]
	}
	s.line[line-1] = '\n'
	return s
}

// Read never fails.
func (s *stream) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(s.rest) == 0 {
			var number [stampLength / 2]byte
			binary.BigEndian.PutUint64(number[:], s.number)
			hex.Encode(s.line, number[:])
			s.number++
			s.rest = s.line
		}
		got := copy(p[n:], s.rest)
		n, s.rest = n+got, s.rest[got:]
	}
	return len(p), nil
}

// compare reads size bytes of the stream and the end, and tells how many came
// and where the first one was that is another.
func (s *stream) compare(r io.Reader, size int64) (got int64, err error) {
	buf, want := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		_, _ = s.Read(want[:n])
		if !bytes.Equal(buf[:n], want[:n]) {
			at := 0
			for buf[at] == want[at] {
				at++
			}
			return got, fmt.Errorf("byte %d is not what was written", got+int64(at))
		}
		got += int64(n)
		switch {
		case errors.Is(err, io.EOF) && got != size:
			return got, fmt.Errorf("%d bytes came of %d", got, size)
		case errors.Is(err, io.EOF):
			return got, nil
		case err != nil:
			return got, err
		}
	}
}

// greeting is what the writer says before it waits for the word to go.
const greeting = "ready\n"

// write is the entrypoint of a container: it writes size bytes in lines of a
// length, by writes of a length, when a byte came out of the file go.
func write(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: -stage write GO SIZE LINE WRITE")
	}
	size, line, each := number(args[1]), number(args[2]), number(args[3])
	if _, err := os.Stdout.WriteString(greeting); err != nil {
		return err
	}
	start, err := os.Open(args[0])
	if err != nil {
		return err
	}
	if _, err := start.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for the word to go: %w", err)
	}
	s := newStream(line)
	for buf := make([]byte, each); size > 0; {
		buf = buf[:min(each, size)]
		_, _ = s.Read(buf)
		if _, err := os.Stdout.Write(buf); err != nil {
			return err
		}
		size -= len(buf)
	}
	return nil
}

func writeArgs(size int64, line, each int) []string {
	return []string{"-stage", "write", "/go/go", strconv.FormatInt(size, 10), strconv.Itoa(line), strconv.Itoa(each)}
}
