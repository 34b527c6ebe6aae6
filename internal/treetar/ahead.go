package treetar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ahead lets a Writer's caller find files while goroutines read those that it
// found, and one writes what they have read, in order. Many small files are one
// batch of it: to wake somebody costs more than a file.
type ahead struct {
	full   chan *batch
	free   chan *batch
	now    *batch
	most   int // entries of a batch
	done   chan struct{}
	broken atomic.Pointer[error]
}

const (
	batches   = 4
	batchSize = 256 << 10 // of contents
	batchMost = 32        // entries, each of which may be open: less where few may be
	// small is how long a file may be that is read into a batch.
	small = 64 << 10
)

// batch are entries that follow each other.
type batch struct {
	list  []entry
	size  int64  // of the contents to come
	bytes []byte // the contents
	ready chan struct{}
}

// entry is a header and what follows it.
type entry struct {
	header *tar.Header
	// A regular file has a descriptor until its content is read.
	fd    int // -1: none
	name  string
	stat  unix.Stat_t
	owner Owned
	bytes []byte
	err   error
}

// Ahead lets the Writer work in goroutines of its own from now on, until Close
// or Stop. An error of reading or writing is that of a later call.
func (w *Writer) Ahead(ctx context.Context) {
	a := &ahead{full: make(chan *batch, batches), free: make(chan *batch, batches), most: batchMost, done: make(chan struct{})}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		// A quarter of them for all batches.
		a.most = int(min(batchMost, max(1, files.Cur/4/batches)))
	}
	for range batches {
		a.free <- &batch{}
	}
	w.ahead = a
	go func() {
		defer close(a.done)
		for b := range a.full {
			<-b.ready
			if a.broken.Load() == nil {
				if err := w.batch(ctx, b); err != nil {
					a.broken.Store(&err)
				}
			}
			b.close()
			a.free <- b
		}
	}()
}

// Stop ends what Ahead began, without the end of the archive.
func (w *Writer) Stop() { _ = w.settle() }

// settle lets all be written that is ahead, and gives the error of it.
func (w *Writer) settle() error {
	a := w.ahead
	if a == nil {
		return nil
	}
	w.flush()
	w.ahead = nil
	close(a.full)
	<-a.done
	return a.failure()
}

func (a *ahead) failure() error {
	if err := a.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// put adds an entry. A regular file's descriptor is its own from now on.
func (w *Writer) put(e entry) error {
	a := w.ahead
	size := int64(0)
	if e.fd >= 0 && e.stat.Size <= small {
		size = e.stat.Size
	}
	if b := a.now; b != nil && (len(b.list) >= a.most || b.size+size > batchSize) {
		w.flush()
	}
	if a.now == nil {
		a.now = <-a.free
		a.now.ready = make(chan struct{})
	}
	a.now.list = append(a.now.list, e)
	a.now.size += size
	return a.failure()
}

// flush lets the batch be read and written.
func (w *Writer) flush() {
	a, b := w.ahead, w.ahead.now
	if b == nil {
		return
	}
	a.now = nil
	a.full <- b
	go func() {
		defer close(b.ready)
		b.bytes = slices.Grow(b.bytes[:0], int(b.size))
		for i := range b.list {
			if a.broken.Load() == nil {
				w.load(b, &b.list[i])
			}
		}
	}()
}

// load reads the file of an entry, its content only if it is small.
func (w *Writer) load(b *batch, e *entry) {
	if e.fd < 0 {
		return
	}
	if e.err = w.describe(e); e.err != nil || e.stat.Size > small {
		return
	}
	begin := len(b.bytes)
	b.bytes = slices.Grow(b.bytes, int(e.stat.Size))[:begin+int(e.stat.Size)]
	e.bytes = b.bytes[begin:]
	if err := readAll(e.fd, e.bytes); err != nil {
		e.err = fmt.Errorf("read %s: %w", e.name, err)
	}
	_ = unix.Close(e.fd)
	e.fd = -1
}

// readAll reads a file from its beginning. What isn't there any more is zeros.
func readAll(fd int, into []byte) error {
	for at := 0; at < len(into); {
		n, err := unix.Pread(fd, into[at:], int64(at))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			clear(into[at:])
			return nil
		}
		at += max(n, 0)
	}
	return nil
}

// batch writes one.
func (w *Writer) batch(ctx context.Context, b *batch) error {
	for i := range b.list {
		e := &b.list[i]
		if errors.Is(e.err, ErrReplaced) {
			continue
		}
		if e.err != nil {
			return e.err
		}
		if err := w.entry(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// close makes it empty.
func (b *batch) close() {
	for _, e := range b.list {
		if e.fd >= 0 {
			_ = unix.Close(e.fd)
		}
	}
	clear(b.list)
	b.list, b.size = b.list[:0], 0
}
