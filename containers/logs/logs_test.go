package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newWriter(t *testing.T, limits Limits) *Writer {
	t.Helper()
	w := NewWriter(t.TempDir(), limits)
	w.now = func() time.Time { return time.Date(2024, 2, 29, 13, 0, 0, 120, time.FixedZone("", 3600)) }
	t.Cleanup(func() { _ = w.Close() })
	return w
}

const stamp = "2024-02-29T12:00:00.000000120Z "

func TestLinesAreCRI(t *testing.T) {
	for name, tc := range map[string]struct {
		pieces []string
		want   string
	}{
		"a line":                    {[]string{"hello\n"}, "F hello\n"},
		"two lines in a write":      {[]string{"a\nb\n"}, "F a\n" + stamp + "stdout F b\n"},
		"an empty line":             {[]string{"\n"}, "F \n"},
		"a piece":                   {[]string{"hel"}, "P hel\n"},
		"a line in two pieces":      {[]string{"hel", "lo\n"}, "P hel\n" + stamp + "stdout F lo\n"},
		"only the end of a line":    {[]string{"hel", "\n"}, "P hel\n" + stamp + "stdout F \n"},
		"a line and a piece":        {[]string{"a\nb"}, "F a\n" + stamp + "stdout P b\n"},
		"a carriage return, a zero": {[]string{"a\r\x00\n"}, "F a\r\x00\n"},
		"no UTF-8":                  {[]string{"\xff\xfe\n"}, "F \xff\xfe\n"},
		"what looks like a line":    {[]string{stamp + "stderr F x\n"}, "F " + stamp + "stderr F x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t, DefaultLimits())
			for _, p := range tc.pieces {
				if err := w.Write(Stdout, []byte(p)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(filepath.Join(w.dir, "log"))
			if want := stamp + "stdout " + tc.want; err != nil || string(got) != want {
				t.Errorf("got %q, %v\nwant %q", got, err, want)
			}
		})
	}
}

func TestNothingIsWrittenWithoutOutput(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	if err := w.Write(Stderr, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(w.dir); len(entries) != 0 {
		t.Errorf("got %v", entries)
	}
}

func TestFileIsPrivate(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	_ = w.Write(Stdout, []byte("secret\n"))
	if st, err := os.Stat(filepath.Join(w.dir, "log")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// TestRotationKeepsTheLimits: and the newest lines, in order.
func TestRotationKeepsTheLimits(t *testing.T) {
	for _, files := range []int{0, 1, 2} {
		limits := Limits{Bytes: 500, Files: files}
		w := newWriter(t, limits)
		const lines = 200
		for i := range lines {
			if err := w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i)); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := os.ReadDir(w.dir)
		if err != nil || len(entries) != files+1 {
			t.Fatalf("%d rotated: %v, %v", files, entries, err)
		}
		var all []byte
		numbers, err := list(w.dir)
		if err != nil || len(numbers) != files+1 {
			t.Fatalf("%d rotated: %v, %v", files, numbers, err)
		}
		for _, n := range numbers {
			data, err := os.ReadFile(path(w.dir, n))
			if err != nil || int64(len(data)) > limits.Bytes {
				t.Errorf("file %d has %d bytes, %v; want at most %d", n, len(data), err, limits.Bytes)
			}
			all = append(all, data...)
		}
		next := lines - bytes.Count(all, []byte("\n"))
		for line := range strings.Lines(string(all)) {
			if want := fmt.Sprintf("line %d\n", next); !strings.HasSuffix(line, want) {
				t.Fatalf("%d rotated: got %q, want %q", files, line, want)
			}
			next++
		}
		if next != lines {
			t.Errorf("the last line is %d, want %d", next-1, lines-1)
		}
	}
}

// TestLogGoesOnWhereItEnded: a container that is started again.
func TestLogGoesOnWhereItEnded(t *testing.T) {
	first := newWriter(t, Limits{Bytes: 100, Files: 1})
	_ = first.Write(Stdout, []byte(strings.Repeat("a", 40)+"\n"))
	_ = first.Close()
	second := NewWriter(first.dir, first.limits)
	second.now = first.now
	for _, text := range []string{"b\n", "c\n"} {
		if err := second.Write(Stdout, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	defer second.Close()
	old, err := os.ReadFile(filepath.Join(first.dir, "log"))
	if err != nil || !strings.Contains(string(old), "aaaa") {
		t.Errorf("log: %q, %v: want what the first run wrote", old, err)
	}
	if third := readAll(t, first.dir); third != strings.Repeat("a", 40)+"\nb\nc\n" {
		t.Errorf("both: %q", third)
	}
}

// TestFullDiskIsAnError: /dev/full plays it.
func TestFullDiskIsAnError(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	if err := os.Symlink("/dev/full", filepath.Join(w.dir, "log")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Write(Stdout, []byte("x\n")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("got %v, want ENOSPC", err)
		}
	}
}

func TestMissingDirectoryIsAnError(t *testing.T) {
	w := NewWriter(filepath.Join(t.TempDir(), "gone"), DefaultLimits())
	if err := w.Write(Stdout, []byte("x\n")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// TestStreamsShareTheLog: each line stays whole.
func TestStreamsShareTheLog(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 1 << 10, Files: 1000})
	var wg sync.WaitGroup
	const lines = 300
	for _, s := range []Stream{Stdout, Stderr} {
		wg.Go(func() {
			for range lines {
				if err := w.Write(s, []byte("text of "+string(s)+"\n")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	files, _ := filepath.Glob(filepath.Join(w.dir, "log*"))
	got := map[string]int{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			got[line]++
		}
	}
	for _, s := range []Stream{Stdout, Stderr} {
		if n := got[stamp+string(s)+" F text of "+string(s)+"\n"]; n != lines {
			t.Errorf("%s: %d lines, want %d", s, n, lines)
		}
	}
	if len(got) != 2 {
		t.Errorf("got other lines: %v", got)
	}
}
