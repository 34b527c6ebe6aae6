package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Read visits the events from since on, and then those to come, up to until or
// the end of ctx, whose error it returns. A zero since means from now on, a
// zero until means without end; an until that is over means that nothing is
// waited for. An error of visit ends it.
//
// Events of different processes come in the order of their writing, which is
// nearly that of their times.
func Read(ctx context.Context, root string, since, until time.Time, visit func(Event) error) error {
	r := &reader{root: root, since: since, until: until, visit: visit}
	defer r.close()
	var bell *bell
	if until.IsZero() || time.Now().Before(until) {
		var err error
		if bell, err = newBell(root); err != nil {
			return err
		}
		defer bell.close()
	}
	if err := r.begin(bell); err != nil {
		return err
	}
	for {
		if err := r.drain(bell); err != nil {
			return err
		}
		switch err := ctx.Err(); {
		case err != nil:
			return err
		case !until.IsZero() && !time.Now().Before(until):
			return r.drain(nil) // what came meanwhile
		}
		if err := bell.wait(ctx, until); err != nil {
			return err
		}
	}
}

// reader goes from file to file.
type reader struct {
	root         string
	since, until time.Time
	visit        func(Event) error
	// current is the file that is read; nil: none is there yet. A writer may
	// have opened the one before and write to it late.
	current, before *source
}

// source is an open file of events.
type source struct {
	file *os.File
	rest []byte // the beginning of a line
}

// begin opens the first file that is to be read, at the place where since
// begins.
func (r *reader) begin(b *bell) error {
	if !r.since.IsZero() {
		return r.open(b)
	}
	f, err := r.file(filepath.Join(r.root, fileName))
	if err != nil || f == nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return r.take(f, b)
}

// open goes on to the file behind the current one, if there is one yet.
func (r *reader) open(b *bell) error {
	for {
		path, err := r.next()
		if err != nil || path == "" {
			return err
		}
		f, err := r.file(path)
		if err != nil {
			return err
		}
		// Between the two looks files may have got other names: a later file
		// under the name of the one that was wanted.
		again, err := r.next()
		if err == nil && again == path && sameFile(f, path) {
			return r.take(f, b)
		}
		if f != nil {
			_ = f.Close()
		}
		if err != nil || f == nil && again == path {
			return err
		}
	}
}

// file opens a file; nil when it isn't there.
func (r *reader) file(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return f, nil
}

func sameFile(f *os.File, path string) bool {
	if f == nil {
		return false
	}
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	st, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, st)
}

func (r *reader) take(f *os.File, b *bell) error {
	hold(f)
	b.watch(f)
	// A last look: what comes still later is by a writer that slept while
	// others filled a whole file.
	err := r.read(r.before)
	if r.before != nil {
		_ = r.before.file.Close()
	}
	r.before, r.current = r.current, &source{file: f}
	return err
}

func (r *reader) close() {
	for _, s := range []*source{r.before, r.current} {
		if s != nil {
			_ = s.file.Close()
		}
	}
}

// drain reads all that is there.
func (r *reader) drain(b *bell) error {
	for {
		for _, s := range []*source{r.before, r.current} {
			if err := r.read(s); err != nil {
				return err
			}
		}
		last := r.current
		if err := r.open(b); err != nil || r.current == last {
			return err
		}
		// It may have got more between its end and its new name: the next
		// round reads it as the one before.
	}
}

// next is the file behind the current one; "": there is none.
func (r *reader) next() (string, error) {
	last := filepath.Join(r.root, fileName)
	if r.current != nil && sameFile(r.current.file, last) {
		return "", nil
	}
	old, err := numbers(r.root)
	if err != nil {
		return "", err
	}
	if r.current != nil {
		for i, n := range old {
			if sameFile(r.current.file, numbered(r.root, n)) {
				old = old[i+1:]
				break
			}
		}
		// Else ours was removed, and all that are there are younger.
	}
	if len(old) > 0 {
		return numbered(r.root, old[0]), nil
	}
	return last, nil
}

// read visits the whole lines of a file, from where it stands to its end; of
// none it visits none.
func (r *reader) read(s *source) error {
	if s == nil {
		return nil
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := s.file.Read(buf)
		s.rest = append(s.rest, buf[:n]...)
		for {
			line, rest, found := bytes.Cut(s.rest, []byte("\n"))
			if !found {
				break
			}
			s.rest = rest
			if err := r.line(line); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			s.rest = bytes.Clone(s.rest)
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *reader) line(line []byte) error {
	e, ok := decode(line)
	if !ok || e.When().Before(r.since) || !r.until.IsZero() && e.When().After(r.until) {
		return nil
	}
	return r.visit(e)
}

// decode reads a line. A write that a full disk cut short has no line end of
// its own, and the event behind it stands in the same line.
func decode(line []byte) (Event, bool) {
	var e Event
	if json.Unmarshal(line, &e) == nil && e.Type != "" {
		return e, true
	}
	// Quotes within JSON's strings are escaped: this begins an event.
	begin := bytes.LastIndex(line, []byte(`{"Type":"`))
	if begin <= 0 {
		return e, false
	}
	e = Event{}
	return e, json.Unmarshal(line[begin:], &e) == nil
}
