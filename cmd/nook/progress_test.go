package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// clock is a progress whose time and timer the test turns.
type clock struct {
	*progress
	out  bytes.Buffer
	time time.Time
	next func()        // the timer under way
	wait time.Duration // what it was set to
}

func newClock(cols, rows int) *clock {
	c := &clock{time: time.Unix(1000, 0)}
	c.progress = newProgress(&c.out, func() (int, int) { return cols, rows })
	c.now = func() time.Time { return c.time }
	c.after = func(d time.Duration, f func()) func() {
		c.wait, c.next = d, f
		return func() { c.next = nil }
	}
	return c
}

// pass lets d pass, then fires the timer, and returns what was drawn.
func (c *clock) pass(d time.Duration) string {
	c.time = c.time.Add(d)
	if next := c.next; next != nil {
		c.next = nil
		next()
	}
	return c.drawn()
}

func (c *clock) drawn() string {
	defer c.out.Reset()
	return c.out.String()
}

func TestProgressIsSilentForASecond(t *testing.T) {
	c := newClock(80, 24)
	b := c.Begin("layer", 100)
	if c.wait != time.Second {
		t.Errorf("first look after %v, want 1s", c.wait)
	}
	b.Add(50)
	b.End()
	if got := c.drawn(); got != "" || c.next != nil {
		t.Errorf("drew %q, timer left: %v", got, c.next != nil)
	}
	// The second of a row is young when the first is old.
	c.Begin("old", 0)
	c.time = c.time.Add(900 * time.Millisecond)
	c.Begin("young", 0)
	if got := c.pass(100 * time.Millisecond); !strings.Contains(got, "old") || strings.Contains(got, "young") {
		t.Errorf("after 1 s: %q", got)
	}
}

func TestProgressDrawsAndTakesAway(t *testing.T) {
	c := newClock(80, 24)
	one := c.Begin("sha256:4f2a", 84_100_000)
	two := c.Begin("unknown", 0)
	one.Add(31_500_000)
	two.Add(2000)
	want := "sha256:4f2a  [==========>                   ]  31.5MB/84.1MB  31.5MB/s\n" +
		"unknown  2kB  2kB/s\n"
	if got := c.pass(time.Second); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if c.wait != progressEvery {
		t.Errorf("next look after %v, want %v", c.wait, progressEvery)
	}
	one.Add(84_100_000) // more than was announced
	want = "\r\x1b[2A\x1b[J" + "sha256:4f2a  [==============================]  116MB/84.1MB  57.8MB/s\n" +
		"unknown  2kB  1kB/s\n"
	if got := c.pass(time.Second); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	c.Print("a note")
	if got := c.drawn(); !strings.HasPrefix(got, "\r\x1b[2A\x1b[Ja note\nsha256:") {
		t.Errorf("note: %q", got)
	}
	one.End()
	if got, want := c.drawn(), "\r\x1b[2A\x1b[Junknown  2kB  1kB/s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	two.End()
	if got, want := c.drawn(), "\r\x1b[1A\x1b[J"; got != want || c.next != nil {
		t.Errorf("got %q, want %q and no timer left", got, want)
	}
	two.End()
	if got := c.drawn(); got != "" {
		t.Errorf("a second End drew %q", got)
	}
}

func TestProgressFitsTheTerminal(t *testing.T) {
	for _, cols := range []int{1, 5, 20, 30, 40, 60, 80, 200} {
		c := newClock(cols, 24)
		c.Begin("a layer with a long name, sha256:0123456789", 1_000_000).Add(123_456)
		for _, row := range strings.Split(c.pass(time.Second), "\n") {
			if n := len([]rune(row)); n >= cols && n > 0 {
				t.Errorf("%d columns: %d characters: %q", cols, n, row)
			}
		}
	}
	c := newClock(80, 4)
	for range 10 {
		c.Begin("bar", 10)
	}
	if got := c.pass(time.Second); strings.Count(got, "\n") != 3 || !strings.HasSuffix(got, "and 8 more\n") {
		t.Errorf("4 rows: %q", got)
	}
}

func TestProgressEscapesItsLabel(t *testing.T) {
	c := newClock(80, 24)
	c.Begin("\x1b]0;title\a", 0)
	if got := c.pass(time.Second); strings.ContainsAny(got, "\x1b\a") {
		t.Errorf("drew %q", got)
	}
}
