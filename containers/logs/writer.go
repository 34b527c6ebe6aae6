package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// longestPiece is the longest text of one line; what is longer becomes
	// several.
	longestPiece = 64 << 10
	// writeSize is the most that goes to the file at once: short lines grow
	// manyfold by what stands before each.
	writeSize = 128 << 10
)

// Writer appends to the log of one container. Its methods may be called from
// several goroutines. There must be no other Writer of the same log.
type Writer struct {
	dir    string
	limits Limits
	now    func() time.Time

	mu     sync.Mutex
	file   *os.File // the last one; nil: not open
	number int
	size   int64
	head   []byte
	buf    []byte // whole lines
}

// NewWriter writes to the log in dir, and goes on where an earlier one ended.
func NewWriter(dir string, limits Limits) *Writer {
	return &Writer{dir: dir, limits: limits, now: time.Now}
}

// Begin makes the log: a container that has none from then on has lost it.
func (w *Writer) Begin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		return nil
	}
	return w.open()
}

// Write appends what a stream gave. A piece without a newline at its end is
// marked P and goes on in the stream's next one.
//
// After an error, as of a full disk, some of data's first lines may be in the
// log, each of them whole, and the next Write tries again.
func (w *Writer) Write(s Stream, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head = appendHead(w.head[:0], w.now(), s)
	for len(data) > 0 {
		tag, size, next := byte(partial), min(len(data), longestPiece), min(len(data), longestPiece)
		if i := bytes.IndexByte(data[:min(len(data), longestPiece+1)], '\n'); i >= 0 {
			tag, size, next = whole, i, i+1
		}
		if len(w.buf) > 0 && len(w.buf)+textAt+size+1 > writeSize {
			if err := w.flush(); err != nil {
				return err
			}
		}
		start := len(w.buf)
		w.buf = append(w.buf, w.head...)
		w.buf[start+tagAt] = tag
		w.buf = append(w.buf, data[:size]...)
		w.buf = append(w.buf, '\n')
		data = data[next:]
	}
	return w.flush()
}

// flush writes the buffer, and empties it in any case.
func (w *Writer) flush() error {
	err := w.append()
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && prune(w.dir, w.limits, true) {
		err = w.append()
	}
	w.buf = w.buf[:0]
	return err
}

func (w *Writer) append() error {
	if w.file != nil && gone(w.file) { // somebody removed it
		_ = w.file.Close()
		w.file = nil
	}
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size > 0 && w.size+int64(len(w.buf)) > w.limits.Bytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(w.buf)
	if err != nil {
		// What is whole counts as written. Half a line is cut off by whoever
		// opens the file next.
		w.buf = w.buf[bytes.LastIndexByte(w.buf[:n], '\n')+1:]
		_ = w.file.Close()
		w.file = nil
		return fmt.Errorf("write log: %w", err)
	}
	w.size += int64(n)
	return nil
}

func gone(f *os.File) bool {
	var st unix.Stat_t
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	err = conn.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
	return err == nil && st.Nlink == 0
}

// open opens the last file.
func (w *Writer) open() error {
	numbers, err := list(w.dir)
	if err != nil {
		return err
	}
	last := 0
	if len(numbers) > 0 {
		last = numbers[len(numbers)-1]
	}
	f, err := openToWrite(path(w.dir, last))
	if err != nil {
		return err
	}
	size, err := cut(f)
	if err != nil {
		_ = f.Close()
		return err
	}
	w.file, w.number, w.size = f, last, size
	return nil
}

func openToWrite(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// cut takes away half a line at a file's end, which a full disk, a kill or a
// power cut left, and returns the size.
func cut(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("open log: %w", err)
	}
	b := backward{file: f}
	newline, err := b.newline(st.Size())
	if err != nil {
		return 0, err
	}
	if newline+1 == st.Size() {
		return st.Size(), nil
	}
	if err := f.Truncate(newline + 1); err != nil {
		return 0, fmt.Errorf("cut half a line off the log: %w", err)
	}
	return newline + 1, nil
}

// rotate begins the next file, once it is there.
func (w *Writer) rotate() error {
	f, err := openToWrite(path(w.dir, w.number+1))
	if err != nil {
		return err
	}
	_ = w.file.Close()
	w.file, w.number, w.size = f, w.number+1, 0
	prune(w.dir, w.limits, false)
	return nil
}

// patience is how long Close waits for followers.
const patience = time.Second

// Close ends the writing. It waits a moment until those who still read an
// older file have opened the last one: then the container can be removed
// without a loss for them. Only one that was stopped takes longer.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	if w.number > 0 {
		for end := time.Now().Add(patience); lagging(w.dir, w.number) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		prune(w.dir, w.limits, false)
	}
	err := w.file.Close()
	w.file = nil
	return err
}
