// Package logs writes a container's output to disk, in the format of
// Kubernetes' CRI, a line a write of the container:
//
//	2006-01-02T15:04:05.000000000Z stdout F a whole line
//	2006-01-02T15:04:05.000000000Z stderr P the beginning of one
//
//	w := logs.NewWriter(dir, logs.DefaultLimits)
//	w.Write(logs.Stdout, data)
//
// The file is bounded: at Limits.Bytes it is renamed log.1, the older ones one
// further, and the oldest goes. Nothing is written until there is output.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Stream names where a line came from.
type Stream string

// The standard streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Limits bound what a log takes on disk.
type Limits struct {
	Bytes int64 // of one file
	Files int   // rotated ones beside the one that is written
}

// DefaultLimits are 10 MiB three times.
func DefaultLimits() Limits { return Limits{Bytes: 10 << 20, Files: 2} }

// Writer appends to the log of one container. Its methods may be called from
// several goroutines.
type Writer struct {
	dir    string
	limits Limits
	now    func() time.Time

	mu   sync.Mutex
	file *os.File
	size int64
	buf  []byte
}

// NewWriter writes to the files log, log.1 and so on in dir.
func NewWriter(dir string, limits Limits) *Writer {
	return &Writer{dir: dir, limits: limits, now: time.Now}
}

// Write appends what a stream gave. A piece without a newline at its end is
// marked P and goes on in the stream's next one.
func (w *Writer) Write(s Stream, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	stamp := w.now().UTC().Format("2006-01-02T15:04:05.000000000Z")
	w.buf = w.buf[:0]
	for len(data) > 0 {
		tag, line := "P", data
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			tag, line, data = "F", data[:i], data[i+1:]
		} else {
			data = nil
		}
		w.buf = append(w.buf, stamp...)
		w.buf = append(w.buf, ' ')
		w.buf = append(w.buf, s...)
		w.buf = append(w.buf, ' ')
		w.buf = append(w.buf, tag...)
		w.buf = append(w.buf, ' ')
		w.buf = append(w.buf, line...)
		w.buf = append(w.buf, '\n')
	}
	return w.append()
}

func (w *Writer) append() error {
	if w.file != nil && w.size+int64(len(w.buf)) > w.limits.Bytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	if w.file == nil {
		f, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		if w.size, err = f.Seek(0, 2); err != nil {
			_ = f.Close()
			return fmt.Errorf("open log: %w", err)
		}
		w.file = f
	}
	n, err := w.file.Write(w.buf)
	w.size += int64(n)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// rotate makes room. A reader that has log open keeps reading it under its
// new name.
func (w *Writer) rotate() error {
	name := func(i int) string {
		if i == 0 {
			return filepath.Join(w.dir, "log")
		}
		return filepath.Join(w.dir, "log."+strconv.Itoa(i))
	}
	_ = w.file.Close()
	w.file = nil
	for i := w.limits.Files; i > 0; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	if w.limits.Files == 0 {
		if err := os.Remove(name(0)); err != nil {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	return nil
}

// Close ends the writing.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}
