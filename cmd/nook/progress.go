package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	"nook/engine"
)

const (
	// A bar appears when its work has taken this long.
	progressAfter = time.Second
	progressEvery = 100 * time.Millisecond
	// columns of a bar, and of the least that still says something
	barWidth, barLeast = 30, 8
)

// progress draws one line for each piece of work that takes over a second, at
// the bottom of a terminal, and takes them away when the work is done.
//
//	sha256:4f2a…  [===========>                  ]  31.5MB/84.1MB  28.9MB/s
//
// It is our own because the library for it (vbauerster/mpb) spends 0.2 ms in
// its package init: a fifth of what nook's whole start may take, paid by each
// run of a container.
type progress struct {
	out  io.Writer
	size func() (cols, rows int)
	now  func() time.Time
	// after calls f once, later; stop keeps it from that.
	after func(d time.Duration, f func()) (stop func())

	mu    sync.Mutex
	bars  []*bar // in the order they began
	lines int    // drawn now, the cursor stands below them
	armed bool   // a redraw is on its way
	stop  func()
}

func newProgress(out io.Writer, size func() (cols, rows int)) *progress {
	return &progress{
		out:  out,
		size: size,
		now:  time.Now,
		after: func(d time.Duration, f func()) func() {
			t := time.AfterFunc(d, f)
			return func() { t.Stop() }
		},
	}
}

type bar struct {
	p     *progress
	label string
	total int64
	done  int64
	began time.Time
}

// Begin is engine.Progress.
func (p *progress) Begin(label string, total int64) engine.Bar {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &bar{p: p, label: oneLine(label), total: total, began: p.now()}
	p.bars = append(p.bars, b)
	p.arm(progressAfter)
	return b
}

func (b *bar) Add(bytes int64) {
	b.p.mu.Lock()
	b.done += bytes
	b.p.mu.Unlock()
}

// End takes the bar away. When it returns the line is free for other text.
func (b *bar) End() {
	p := b.p
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.bars, b)
	if i < 0 {
		return
	}
	p.bars = slices.Delete(p.bars, i, i+1)
	if p.lines > 0 {
		p.draw()
	}
	if len(p.bars) == 0 && p.armed {
		p.stop()
		p.armed = false
	}
}

// Print writes a line of text above the bars.
func (p *progress) Print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.out, p.erase(), text, "\n")
	p.lines = 0
	p.draw()
}

// arm orders a redraw if none is under way. The first of a row of bars waits a
// second; before that not even a timer's goroutine runs.
func (p *progress) arm(d time.Duration) {
	if p.armed {
		return
	}
	p.armed = true
	p.stop = p.after(d, p.tick)
}

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = false
	if len(p.bars) == 0 {
		return
	}
	p.draw()
	p.arm(progressEvery)
}

// draw replaces what is drawn by how things are now, in one write.
func (p *progress) draw() {
	cols, rows := p.size()
	now := p.now()
	var lines []string
	for _, b := range p.bars {
		if now.Sub(b.began) >= progressAfter {
			lines = append(lines, b.line(now, cols))
		}
	}
	// More lines than the terminal has could not be taken away again.
	if limit := max(rows-1, 1); len(lines) > limit {
		more := len(lines) - limit + 1
		lines = append(lines[:limit-1], clip(fmt.Sprintf("and %d more", more), cols-1))
	}
	if len(lines) == 0 && p.lines == 0 {
		return
	}
	text := p.erase()
	for _, line := range lines {
		text += line + "\n"
	}
	p.lines = len(lines)
	_, _ = io.WriteString(p.out, text)
}

// erase is what removes the lines drawn last: cursor up, clear to the end.
func (p *progress) erase() string {
	if p.lines == 0 {
		return ""
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", p.lines)
}

// line never fills the last column, where terminals differ in when they wrap.
func (b *bar) line(now time.Time, cols int) string {
	amount := units.HumanSizeWithPrecision(float64(b.done), 3)
	if b.total > 0 {
		amount += "/" + units.HumanSizeWithPrecision(float64(b.total), 3)
	}
	if seconds := now.Sub(b.began).Seconds(); seconds > 0 {
		amount += "  " + units.HumanSizeWithPrecision(float64(b.done)/seconds, 3) + "/s"
	}
	room := cols - 1
	if b.total > 0 {
		width := min(barWidth, room-len([]rune(b.label))-len(amount)-len("  []  "))
		if width >= barLeast {
			return b.label + "  [" + b.draw(width) + "]  " + amount
		}
	}
	if label := clip(b.label, room-len(amount)-2); label != "" {
		return label + "  " + amount
	}
	return clip(amount, room)
}

func (b *bar) draw(width int) string {
	done := min(max(b.done, 0), b.total)
	filled := int(float64(done) / float64(b.total) * float64(width))
	if filled == 0 || filled >= width {
		return strings.Repeat("=", filled) + strings.Repeat(" ", width-filled)
	}
	return strings.Repeat("=", filled-1) + ">" + strings.Repeat(" ", width-filled)
}

// clip shortens text to at most width characters.
func clip(text string, width int) string {
	runes := []rune(text)
	switch {
	case len(runes) <= width:
		return text
	case width < 2:
		return ""
	}
	return string(runes[:width-1]) + "…"
}
