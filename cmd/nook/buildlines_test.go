package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"nook/build"
)

func TestOpenLine(t *testing.T) {
	long := strings.Repeat("x", mostOpen)
	wide := strings.Repeat("ü", mostOpen/2)
	for name, tc := range map[string]struct {
		in   []string
		want []string
	}{
		"lines":                    {[]string{"a\nb\n"}, []string{"a", "b"}},
		"in parts":                 {[]string{"a", "b", "\n", "\nc"}, []string{"ab", "", "c"}},
		"overwritten":              {[]string{"1%\r2%\r", "3%", "\r4%\n"}, []string{"4%"}},
		"a return before the end":  {[]string{"done\r", "\n", "x\r\ny"}, []string{"done", "x", "y"}},
		"returns alone":            {[]string{"\r\r", "\r"}, nil},
		"a part, then a return":    {[]string{"one", "\r", "two"}, []string{"two"}},
		"the next line is its own": {[]string{"a\r\n", "b", "c"}, []string{"a", "bc"}},
		"longer than what waits":   {[]string{long, "yy", "\nz"}, []string{long, "yy", "z"}},
		"at once":                  {[]string{long + long + "y\n"}, []string{long, long, "y"}},
		"characters stay whole":    {[]string{"a" + wide}, []string{"a" + wide[:mostOpen-2], "ü"}},
	} {
		t.Run(name, func(t *testing.T) {
			var l openLine
			var got []string
			line := func(text string) { got = append(got, text) }
			for _, text := range tc.in {
				l.write(text, line)
			}
			l.end(line)
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %.100q, want %.100q", got, tc.want)
			}
		})
	}
	// Bytes that are no text have no character to keep whole, and all come out.
	var l openLine
	n := 0
	l.write(strings.Repeat("\x80", 3*mostOpen), func(text string) { n += len(text) })
	l.end(func(text string) { n += len(text) })
	if n != 3*mostOpen {
		t.Errorf("%d bytes came out, want %d", n, 3*mostOpen)
	}
}

// A command that ends no line makes the views keep a bounded part of it, and
// cost what it wrote once, not once for each write.
func TestViewsBoundALineWithoutEnd(t *testing.T) {
	var out bytes.Buffer
	plain := &plainView{w: &out, steps: map[int]*plainStep{}}
	screen := screenAt(&out, 80, 20)
	for name, tc := range map[string]struct {
		view buildView
		rest func() openLine
	}{
		"plain": {plain, func() openLine { return plain.steps[1].rest }},
		"tty":   {screen, func() openLine { return screen.steps[0].rest }},
	} {
		t.Run(name, func(t *testing.T) {
			tc.view.event(build.Event{Step: 1, Kind: build.Started, Time: time.Unix(0, 0), Text: "RUN yes"})
			for _, text := range []string{strings.Repeat("y", 32<<10), strings.Repeat("100%\r", 8<<10)} {
				for range 64 {
					tc.view.event(build.Event{Step: 1, Kind: build.Wrote, Time: time.Unix(1, 0), Text: text})
					if rest := tc.rest(); cap(rest.b) > 256<<10 {
						t.Fatalf("%d bytes wait for a line's end", cap(rest.b))
					}
				}
			}
		})
	}
	if got, want := strings.Count(out.String(), "y"), 64*32<<10; got < want-mostOpen {
		t.Errorf("plain progress shows %d bytes of %d", got, want)
	}
}
