package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestRoundTrip(t *testing.T) {
	messages := []struct {
		kind    Kind
		payload []byte
	}{
		{Started, nil},
		{Stdout, []byte("hello")},
		{Stdin, bytes.Repeat([]byte{0, 255, '\n'}, 100_000)},
		{Exit, []byte(`{"code":1}`)},
		{Stderr, make([]byte, MaxPayload)},
		{Kind(255), []byte{0}},
	}
	var stream bytes.Buffer
	for _, m := range messages {
		if err := Write(&stream, m.kind, m.payload); err != nil {
			t.Fatal(err)
		}
	}
	for name, r := range map[string]io.Reader{
		"at once":         bytes.NewReader(stream.Bytes()),
		"a byte a read":   iotest.OneByteReader(bytes.NewReader(stream.Bytes())),
		"with its ending": iotest.DataErrReader(bytes.NewReader(stream.Bytes())),
	} {
		frames := NewReader(r)
		for i, want := range messages {
			kind, payload, err := frames.Next()
			if err != nil || kind != want.kind || !bytes.Equal(payload, want.payload) {
				t.Errorf("%s, message %d: kind %d with %d bytes, %v; want %d with %d", name, i, kind, len(payload), err, want.kind, len(want.payload))
			}
		}
		if _, _, err := frames.Next(); err != io.EOF { //nolint:errorlint // io.EOF itself is promised
			t.Errorf("%s: at the end: %v, want io.EOF", name, err)
		}
	}
}

// writes counts the calls of Write.
type writes int

func (w *writes) Write(p []byte) (int, error) { *w++; return len(p), nil }

// TestWriteIsOneCall: messages of several writers don't mix.
func TestWriteIsOneCall(t *testing.T) {
	var w writes
	if err := Write(&w, Stdout, []byte("x")); err != nil || w != 1 {
		t.Errorf("%d calls, %v; want 1", w, err)
	}
}

func TestTooLongIsRefused(t *testing.T) {
	var w writes
	if err := Write(&w, Stdout, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLong) || w != 0 {
		t.Errorf("Write: %v after %d calls, want ErrTooLong before any", err, w)
	}
	for _, n := range []uint32{MaxPayload + 1, 1 << 31, 1<<32 - 1} {
		header := binary.BigEndian.AppendUint32([]byte{byte(Stdout)}, n)
		if _, _, err := NewReader(bytes.NewReader(header)).Next(); !errors.Is(err, ErrTooLong) {
			t.Errorf("Next of %d: %v, want ErrTooLong", n, err)
		}
	}
}

func TestCutShort(t *testing.T) {
	var stream bytes.Buffer
	if err := Write(&stream, Stdout, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for n := range stream.Len() {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, _, err := NewReader(bytes.NewReader(stream.Bytes()[:n])).Next(); !errors.Is(err, want) {
			t.Errorf("%d bytes of it: %v, want %v", n, err, want)
		}
	}
	broken := errors.New("broken")
	if _, _, err := NewReader(iotest.ErrReader(broken)).Next(); !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's own error", err)
	}
}

// TestWriteTellsItsError: a client that went away.
func TestWriteTellsItsError(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	if err := Write(w, Stdout, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want ErrClosedPipe", err)
	}
}

// FuzzReader: whatever bytes come, messages are read that Write gives back as
// they were, and memory is bounded.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{4, 0, 0, 0, 1, 'x'})
	f.Add([]byte{4, 0, 0, 0, 0, 5, 0, 0, 0, 2, 'a', 'b', 6})
	f.Add([]byte{4, 255, 255, 255, 255})
	f.Add([]byte{4, 0, 16, 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		var again bytes.Buffer
		for {
			kind, payload, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrTooLong) {
					t.Fatalf("an error that isn't promised: %v", err)
				}
				break
			}
			if err := Write(&again, kind, payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(data, again.Bytes()) {
			t.Fatalf("read %x\nas %x", data, again.Bytes())
		}
	})
}
