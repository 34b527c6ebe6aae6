package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// ReadOptions say which part of a log is read, and how.
type ReadOptions struct {
	// Tail is how many of the last lines; negative: all.
	Tail int
	// Since and Until bound the time a line was written; zero: no bound.
	Since, Until time.Time
	// Timestamps puts the time before each line, as it stands in the file.
	Timestamps bool
	// Follow goes on with what is written later. Otherwise the end of the log
	// is where it was at the beginning.
	Follow bool
}

// readSize is how much is read at once.
const readSize = 256 << 10

// mostHeld is how many files a reader opens ahead of the one it reads. The
// lock on that one keeps all of them from the writer, but an open one outlives
// the container's removal too.
const mostHeld = 200

// Reader reads a log while it is written, and keeps the rest of it from being
// rotated away.
type Reader struct {
	dir          string
	limits       Limits
	opts         ReadOptions
	since, until []byte // as stamps; empty: no bound

	mu    sync.Mutex
	files []*segment // held, oldest first; the first is read

	offset  int64 // in the first file: where the next line begins
	buf     []byte
	from    [2]position // of each stream: what is before is left out
	end     *position   // for one that doesn't follow
	midline [2]bool     // of each stream: its last piece ended no line
	over    bool        // past until
}

// segment is one file of a log.
type segment struct {
	number int
	file   *os.File
}

// NewReader opens the log in dir, whether anything was written to it yet or
// not. The caller closes it.
func NewReader(dir string, limits Limits, o ReadOptions) (*Reader, error) {
	r := &Reader{dir: dir, limits: limits, opts: o}
	if !o.Since.IsZero() {
		r.since = o.Since.UTC().AppendFormat(nil, stampLayout)
	}
	if !o.Until.IsZero() {
		r.until = o.Until.UTC().AppendFormat(nil, stampLayout)
	}
	if err := r.begin(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if len(r.files) == 0 {
		r.opts.Tail = -1 // whatever comes is new
		r.over = !o.Follow
	}
	return r, nil
}

// Close lets go of the log. What was kept for this reader alone is deleted.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, s := range r.files {
		err = errors.Join(err, s.file.Close())
	}
	r.files = nil
	prune(r.dir, r.limits, false)
	return err
}

// begin opens the file to start with, if there is any.
func (r *Reader) begin() error {
	for {
		numbers, err := list(r.dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case len(numbers) > 0:
		case !r.opts.Follow:
			return nil
		default:
			// The first file is made here, so that a container's last words,
			// which may be its first, are not removed with it unread.
			f, err := openToWrite(path(r.dir, 0))
			if err != nil {
				return nil //nolint:nilerr // then there is nothing to hold yet
			}
			_ = f.Close()
			continue
		}
		err = r.beginAt(numbers[0], numbers[len(numbers)-1])
		if !errors.Is(err, fs.ErrNotExist) { // rotated away meanwhile
			return err
		}
	}
}

func (r *Reader) beginAt(first, last int) error {
	if r.opts.Tail < 0 {
		f, err := hold(r.dir, first)
		if err != nil {
			return err
		}
		r.files = []*segment{{first, f}}
		return r.endAt(last)
	}
	f, err := hold(r.dir, last)
	if err != nil {
		return err
	}
	t := tail{lines: r.opts.Tail}
	oldest, err := t.find(r.dir, &segment{last, f})
	defer func() { _ = oldest.file.Close() }() // not before the one to start with is held
	if err != nil {
		return err
	}
	start := t.from[0]
	if t.from[1].before(start) {
		start = t.from[1]
	}
	if f, err = hold(r.dir, start.number); err != nil {
		return err
	}
	r.files, r.from, r.offset = []*segment{{start.number, f}}, t.from, start.offset
	return r.endAt(last)
}

// endAt remembers where the log ends now.
func (r *Reader) endAt(last int) error {
	if r.opts.Follow {
		return nil
	}
	st, err := os.Stat(path(r.dir, last))
	if err != nil {
		return errors.Join(fmt.Errorf("read log: %w", err), r.letGo())
	}
	r.end = &position{last, st.Size()}
	return nil
}

func (r *Reader) letGo() error {
	err := r.files[0].file.Close()
	r.files = nil
	return err
}

// Ahead opens the files that were begun since. It may be called while Copy
// runs: a file that is open outlives the removal of its container.
func (r *Reader) Ahead() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.ahead() // Copy meets the same error, should it matter
}

func (r *Reader) ahead() error {
	if len(r.files) == 0 {
		return r.begin()
	}
	for len(r.files) < mostHeld {
		n := r.files[len(r.files)-1].number + 1
		f, err := hold(r.dir, n)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		r.files = append(r.files, &segment{n, f})
	}
	return nil
}

// current is the file that is read; more: no more will be written to it. nil:
// there is none yet.
func (r *Reader) current() (s *segment, more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.ahead()
	if len(r.files) == 0 {
		return nil, false, err
	}
	more = len(r.files) > 1
	if more { // then an error, as of too many open files, can wait
		err = nil
	}
	return r.files[0], more, err
}

// Done tells whether nothing more will come, whatever is written.
func (r *Reader) Done() bool { return r.over }

// Copy writes out what is in the log by now and was not yet written out; what
// stdout and stderr get are the bytes that the container wrote there. A nil
// writer is not written to. Half a line at the end is left for the next Copy.
//
// Errors: ErrBroken, ErrGap, the writers', and those of reading.
func (r *Reader) Copy(ctx context.Context, stdout, stderr io.Writer) error {
	out := &sink{to: [2]io.Writer{stdout, stderr}}
	for !r.over {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, more, err := r.current()
		if err != nil || s == nil {
			return err
		}
		n, err := r.read(s)
		if err != nil {
			return err
		}
		taken, err := r.lines(s, r.buf[:n], out)
		if err != nil {
			return err
		}
		r.offset += int64(taken)
		switch {
		case r.end != nil && s.number == r.end.number && n < len(r.buf):
			r.over = true
		case taken > 0:
		case n == len(r.buf): // a line that is longer
			r.buf = make([]byte, 2*len(r.buf))
		case more:
			r.advance()
		default:
			return r.gap(s)
		}
	}
	return nil
}

// read fills the buffer from where the next line begins: half a line that was
// read before may be cut off since, and another be in its place.
func (r *Reader) read(s *segment) (n int, err error) {
	if r.buf == nil {
		r.buf = make([]byte, readSize)
	}
	size := len(r.buf)
	if r.end != nil && s.number == r.end.number {
		size = int(min(int64(size), max(0, r.end.offset-r.offset)))
	}
	n, err = s.file.ReadAt(r.buf[:size], r.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return n, nil
}

// advance goes on with the next file, which is held already.
func (r *Reader) advance() {
	r.mu.Lock()
	_ = r.files[0].file.Close()
	r.files = r.files[1:]
	r.offset = 0
	r.mu.Unlock()
	prune(r.dir, r.limits, false)
}

// gap tells whether the file that follows this one was deleted unread.
func (r *Reader) gap(s *segment) error {
	if r.end == nil && !deleted(s.file) {
		return nil
	}
	numbers, err := list(r.dir)
	if err != nil {
		return nil //nolint:nilerr // the container was removed
	}
	for _, n := range numbers {
		if n > s.number+1 {
			return ErrGap
		}
	}
	return nil
}

// lines writes out the text of the whole lines in data, which it changes, and
// returns their length.
func (r *Reader) lines(s *segment, data []byte, out *sink) (taken int, err error) {
	out.data = data
	for {
		size := bytes.IndexByte(data[taken:], '\n')
		if size < 0 {
			break
		}
		start, end := taken, taken+size
		h, ok := parseHead(data[start:end])
		if !ok {
			return 0, errors.Join(out.flush(), broken(s.file.Name(), r.offset+int64(start)))
		}
		stamp := data[start : start+stampLength]
		if len(r.until) > 0 && bytes.Compare(stamp, r.until) > 0 {
			r.over = true
			break
		}
		taken = end + 1
		i := stream(h)
		at := position{s.number, r.offset + int64(start)}
		if at.before(r.from[i]) || bytes.Compare(stamp, r.since) < 0 {
			continue
		}
		if !h.partial {
			end++ // its newline is the container's
		}
		text := start + textAt
		if r.opts.Timestamps && !r.midline[i] {
			text -= stampLength + 1
			copy(data[text:], stamp)
			data[text+stampLength] = ' '
		}
		r.midline[i] = h.partial
		if err := out.add(i, text, end); err != nil {
			return 0, err
		}
	}
	return taken, out.flush()
}

// sink gathers text of one stream within the buffer that it was read into: it
// only moves to the front.
type sink struct {
	to         [2]io.Writer
	data       []byte
	stream     int
	start, end int
}

// directSize is how long a text is that is written from where it stands.
const directSize = 16 << 10

func (k *sink) add(stream, start, end int) error {
	if k.to[stream] == nil {
		return nil
	}
	if k.end > k.start && (stream != k.stream || end-start > directSize) {
		if err := k.flush(); err != nil {
			return err
		}
	}
	if k.end == k.start {
		k.stream, k.start, k.end = stream, start, end
		return nil
	}
	k.end += copy(k.data[k.end:], k.data[start:end])
	return nil
}

func (k *sink) flush() error {
	text := k.data[k.start:k.end]
	k.start, k.end = 0, 0
	if len(text) == 0 {
		return nil
	}
	_, err := k.to[k.stream].Write(text)
	return err
}
