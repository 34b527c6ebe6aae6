package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// position is a place in a log: where a line begins.
type position struct {
	number int // of the file
	offset int64
}

func (p position) before(q position) bool {
	return p.number < q.number || p.number == q.number && p.offset < q.offset
}

// tail looks for the last lines of a log. Both streams' lines count, and all
// pieces of a line are one: those of the other stream may stand between them.
type tail struct {
	lines   int         // how many are wanted
	counted int         // how many were found
	from    [2]position // where those of each stream begin
	growing [2]bool     // the first one found may have earlier pieces
	seen    [2]bool     // a later piece was met
}

// visit is given the pieces, last one first, and tells whether it wants more.
func (t *tail) visit(at position, h head) bool {
	s := stream(h)
	switch ends := !h.partial || !t.seen[s]; {
	case ends && t.counted < t.lines:
		t.counted++
		t.growing[s] = true
		t.from[s] = at
	case ends:
		t.growing[s] = false
	case t.growing[s]:
		t.from[s] = at
	}
	t.seen[s] = true
	return t.counted < t.lines || t.growing[0] || t.growing[1]
}

// stream is a piece's index into what a reader keeps for each stream.
func stream(h head) int {
	if h.stderr {
		return 1
	}
	return 0
}

// find goes backward from the file last, which is held, through those before.
// It returns the one it ended at, which is held in its place.
func (t *tail) find(dir string, last *segment) (*segment, error) {
	size, err := sizeOf(last.file)
	if err != nil {
		return last, err
	}
	at := last
	for {
		more, err := t.search(at, size, at == last)
		if err != nil || !more || at.number == 0 {
			return at, err
		}
		f, err := hold(dir, at.number-1)
		if errors.Is(err, fs.ErrNotExist) { // the log begins here
			return at, nil
		}
		if err != nil {
			return at, err
		}
		_ = at.file.Close()
		at = &segment{at.number - 1, f}
		if size, err = sizeOf(f); err != nil {
			return at, err
		}
	}
}

func sizeOf(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	return st.Size(), nil
}

// search visits the lines of one file. The end of the last file is where the
// lines not found begin.
func (t *tail) search(s *segment, size int64, last bool) (more bool, err error) {
	b := backward{file: s.file}
	end, err := b.newline(size)
	if err != nil {
		return false, err
	}
	if last {
		t.from[0] = position{s.number, end + 1}
		t.from[1] = t.from[0]
	}
	more = t.lines > 0
	for more && end >= 0 {
		previous, err := b.newline(end)
		if err != nil {
			return false, err
		}
		h, err := b.head(previous+1, end)
		if err != nil {
			return false, err
		}
		more = t.visit(position{s.number, previous + 1}, h)
		end = previous
	}
	return more, nil
}
