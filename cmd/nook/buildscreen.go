package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"nook/build"
)

// screen draws a build at the bottom of a terminal, as buildkit does:
//
//	[+] Building 3.2s (3/4)
//	 => [internal] load build definition from Dockerfile            0.0s
//	 => CACHED [1/3] FROM docker.io/library/debian:13               0.0s
//	 => [2/3] RUN apt-get update                                    3.1s
//	 => => # Get:1 http://deb.debian.org/debian trixie InRelease
//
// At the end all steps stand there, however many they are.
type screen struct {
	out   io.Writer
	size  func() (cols, rows int)
	now   func() time.Time
	after func(d time.Duration, f func()) (stop func())

	mu    sync.Mutex
	began time.Time
	steps []*screenStep // by their order; a step's number is its index + 1
	lines int           // drawn now
	stop  func()
	ended bool
}

type screenStep struct {
	name         string
	began, ended time.Time // ended zero: under way
	mark         string    // CACHED, ERROR, CANCELED
	tail         []string
	rest         openLine
}

// shownTail is how many lines of output stand below a step under way.
const shownTail = 6

// widestTail is how many characters of one are kept.
const widestTail = 2000

func newScreen(out io.Writer, size func() (cols, rows int)) *screen {
	return &screen{
		out: out, size: size, now: time.Now, began: time.Now(),
		after: func(d time.Duration, f func()) func() {
			t := time.AfterFunc(d, f)
			return func() { t.Stop() }
		},
	}
}

func (s *screen) quiet() bool { return false }

func (s *screen) event(e build.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == build.Started {
		for len(s.steps) < e.Step {
			s.steps = append(s.steps, nil)
		}
		s.steps[e.Step-1] = &screenStep{name: oneLine(abridged(e.Text)), began: e.Time}
		if s.stop == nil {
			s.stop = s.after(progressEvery, s.tick)
		}
		return
	}
	if e.Step < 1 || e.Step > len(s.steps) || s.steps[e.Step-1] == nil {
		return
	}
	s.steps[e.Step-1].event(e)
}

func (st *screenStep) event(e build.Event) {
	switch e.Kind {
	case build.Wrote, build.Told:
		text := e.Text
		if e.Kind == build.Told {
			text += "\n"
		}
		st.rest.write(text, func(line string) {
			// No terminal is as wide as a line may be long.
			line = oneLine(printableText(clip(line, widestTail)))
			st.tail = append(st.tail[max(len(st.tail)-shownTail+1, 0):], line)
		})
		return
	case build.Cached:
		st.mark = "CACHED "
	case build.Failed:
		st.mark = "ERROR "
	case build.Canceled:
		st.mark = "CANCELED "
	}
	st.ended = e.Time
}

func (s *screen) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.draw(false)
	s.stop = s.after(progressEvery, s.tick)
}

// end draws all that was done, once, and leaves it there.
func (s *screen) end(error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
	}
	s.ended = true
	if len(s.steps) > 0 {
		s.draw(true)
	}
}

// draw replaces what stands there, in one write. Before the end it keeps to
// the terminal's height: what is under way comes first, then what was last.
func (s *screen) draw(all bool) {
	cols, rows := s.size()
	now := s.now()
	done := 0
	var blocks [][]string
	var steps []*screenStep
	for _, st := range s.steps {
		if st == nil {
			continue // its Started comes late
		}
		steps = append(steps, st)
		if !st.ended.IsZero() {
			done++
		}
		blocks = append(blocks, st.block(now, cols, !all))
	}
	room := max(rows-2, 1)
	shown := make([]bool, len(blocks))
	take := func(underWay bool) {
		for i := len(blocks) - 1; i >= 0; i-- {
			if shown[i] || underWay != steps[i].ended.IsZero() || !all && len(blocks[i]) > room {
				continue
			}
			shown[i] = true
			room -= len(blocks[i])
		}
	}
	take(true)
	take(false)
	lines := []string{clip(fmt.Sprintf("[+] Building %.1fs (%d/%d)", now.Sub(s.began).Seconds(), done, len(blocks)), cols-1)}
	for i, block := range blocks {
		if shown[i] {
			lines = append(lines, block...)
		}
	}
	var b strings.Builder
	if s.lines > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA\x1b[J", s.lines)
	}
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	s.lines = len(lines)
	_, _ = io.WriteString(s.out, b.String())
}

// block is the lines of one step.
func (st *screenStep) block(now time.Time, cols int, withTail bool) []string {
	ended := st.ended
	if ended.IsZero() {
		ended = now
	}
	left := " => " + st.mark + st.name
	right := fmt.Sprintf(" %.1fs", ended.Sub(st.began).Seconds())
	width := cols - 1 - len(right)
	if n := len([]rune(left)); n > width {
		left = clip(left, width)
	} else {
		left += strings.Repeat(" ", width-n)
	}
	lines := []string{left + right}
	if withTail && st.ended.IsZero() {
		for _, text := range st.tail {
			lines = append(lines, clip(" => => # "+text, cols-1))
		}
	}
	return lines
}
