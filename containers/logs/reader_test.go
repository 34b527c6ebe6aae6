package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// read gives what a reader with these options writes out.
func read(t *testing.T, dir string, o ReadOptions) (stdout, stderr string, err error) {
	t.Helper()
	r, err := NewReader(dir, DefaultLimits(), o)
	if err != nil {
		return "", "", err
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out, errs bytes.Buffer
	err = r.Copy(t.Context(), &out, &errs)
	return out.String(), errs.String(), err
}

func readAll(t *testing.T, dir string) string {
	t.Helper()
	out, _, err := read(t, dir, ReadOptions{Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// put writes pieces: "1:text" to stdout, "2:text" to stderr. Each second has
// one.
func put(t *testing.T, w *Writer, pieces ...string) {
	t.Helper()
	for _, p := range pieces {
		s := Stdout
		if p[0] == '2' {
			s = Stderr
		}
		now := w.now()
		if err := w.Write(s, []byte(p[2:])); err != nil {
			t.Fatal(err)
		}
		w.now = func() time.Time { return now.Add(time.Second) }
	}
}

func at(second int) time.Time {
	return time.Date(2024, 2, 29, 12, 0, second, 120, time.UTC)
}

func stampAt(second int) string { return at(second).Format(stampLayout) + " " }

func TestReaderSelects(t *testing.T) {
	lines := []string{"1:a\n", "2:b\n", "1:c\n", "1:d"}
	pieces := []string{"1:x\n", "1:a1 ", "2:e\n", "1:a2 ", "2:f1 ", "1:a3\n", "2:f2\n", "1:end"}
	for name, tc := range map[string]struct {
		pieces   []string
		o        ReadOptions
		out, err string
	}{
		"all":                       {lines, ReadOptions{Tail: -1}, "a\nc\nd", "b\n"},
		"no line":                   {lines, ReadOptions{Tail: 0}, "", ""},
		"an unfinished line counts": {lines, ReadOptions{Tail: 1}, "d", ""},
		"two lines":                 {lines, ReadOptions{Tail: 2}, "c\nd", ""},
		"three lines":               {lines, ReadOptions{Tail: 3}, "c\nd", "b\n"},
		"more than there are":       {lines, ReadOptions{Tail: 9}, "a\nc\nd", "b\n"},
		"since":                     {lines, ReadOptions{Tail: -1, Since: at(1)}, "c\nd", "b\n"},
		"since, just after":         {lines, ReadOptions{Tail: -1, Since: at(1).Add(1)}, "c\nd", ""},
		"until":                     {lines, ReadOptions{Tail: -1, Until: at(1)}, "a\n", "b\n"},
		"until, just before":        {lines, ReadOptions{Tail: -1, Until: at(1).Add(-1)}, "a\n", ""},
		"since and until":           {lines, ReadOptions{Tail: -1, Since: at(1), Until: at(2)}, "c\n", "b\n"},
		"tail is before since":      {lines, ReadOptions{Tail: 2, Since: at(3)}, "d", ""},
		"a zone of its own":         {lines, ReadOptions{Tail: -1, Since: at(3).In(time.FixedZone("", 7200))}, "d", ""},
		"joined":                    {pieces, ReadOptions{Tail: -1}, "x\na1 a2 a3\nend", "e\nf1 f2\n"},
		"the last of pieces":        {pieces, ReadOptions{Tail: 1}, "end", ""},
		"two of pieces":             {pieces, ReadOptions{Tail: 2}, "end", "f1 f2\n"},
		"three of pieces":           {pieces, ReadOptions{Tail: 3}, "a1 a2 a3\nend", "f1 f2\n"},
		"four of pieces":            {pieces, ReadOptions{Tail: 4}, "a1 a2 a3\nend", "e\nf1 f2\n"},
		"times": {
			lines, ReadOptions{Tail: -1, Timestamps: true},
			stampAt(0) + "a\n" + stampAt(2) + "c\n" + stampAt(3) + "d", stampAt(1) + "b\n",
		},
		"times of pieces": {
			pieces, ReadOptions{Tail: -1, Timestamps: true},
			stampAt(0) + "x\n" + stampAt(1) + "a1 a2 a3\n" + stampAt(7) + "end", stampAt(2) + "e\n" + stampAt(4) + "f1 f2\n",
		},
	} {
		for _, bytes := range []int64{1 << 20, 120, 1} {
			t.Run(fmt.Sprintf("%s, files of %d bytes", name, bytes), func(t *testing.T) {
				w := newWriter(t, Limits{Bytes: bytes, Files: 100})
				w.now = func() time.Time { return at(0) }
				put(t, w, tc.pieces...)
				r, err := NewReader(w.dir, w.limits, tc.o)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				out, errs := &strings.Builder{}, &strings.Builder{}
				if err := r.Copy(t.Context(), out, errs); err != nil || out.String() != tc.out || errs.String() != tc.err {
					t.Errorf("got %q and %q, %v\nwant %q and %q", out, errs, err, tc.out, tc.err)
				}
			})
		}
	}
}

// TestReaderJoinsLinesOfAnyLength: pieces longer than the reader's buffer too,
// as another writer may make.
func TestReaderJoinsLinesOfAnyLength(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	long := strings.Repeat("0123456789abcdef", 100_000) // 1.6 MB
	put(t, w, "1:"+long+"\n", "2:short\n", "1:tail")
	if got := readAll(t, w.dir); got != long+"\ntail" {
		t.Errorf("got %d bytes, want %d", len(got), len(long)+5)
	}
	if out, _, err := read(t, w.dir, ReadOptions{Tail: 3}); err != nil || out != long+"\ntail" {
		t.Errorf("tail: got %d bytes, %v", len(out), err)
	}
	dir := t.TempDir()
	line := stamp + "stdout F " + long + "\n"
	if err := os.WriteFile(filepath.Join(dir, "log"), []byte(line+line), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, dir); got != long+"\n"+long+"\n" {
		t.Errorf("one line: got %d bytes", len(got))
	}
	if out, _, err := read(t, dir, ReadOptions{Tail: 1}); err != nil || out != long+"\n" {
		t.Errorf("one line, tail: got %d bytes, %v", len(out), err)
	}
}

func TestReaderOfNothing(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "gone")} {
		for _, o := range []ReadOptions{{}, {Tail: -1}, {Tail: 3}, {Follow: true}} {
			if out, errs, err := read(t, dir, o); err != nil || out+errs != "" {
				t.Errorf("%+v: %q %q, %v", o, out, errs, err)
			}
		}
	}
	w := newWriter(t, DefaultLimits())
	if err := os.WriteFile(filepath.Join(w.dir, "log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := read(t, w.dir, ReadOptions{Tail: 3}); err != nil || out != "" {
		t.Errorf("empty: %q, %v", out, err)
	}
}

func TestReaderTellsABrokenLog(t *testing.T) {
	good := stamp + "stdout F good\n"
	for name, tc := range map[string]struct{ text, out string }{
		"another format": {good + "{\"log\":\"x\"}\n" + good, "good\n"},
		"an empty line":  {good + "\n" + good, "good\n"},
		"another stream": {good + stamp + "stdin  F x\n", "good\n"},
		"another tag":    {good + stamp + "stdout X x\n", "good\n"},
		"a head alone":   {good + stamp + "stdout\n", "good\n"},
		"zeros":          {good + strings.Repeat("\x00", 50) + good, "good\n"},
		"many zeros":     {good + strings.Repeat("\x00", 3*readSize) + good, "good\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "log"), []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, _, err := read(t, dir, ReadOptions{Tail: -1})
			if !errors.Is(err, ErrBroken) || out != tc.out {
				t.Errorf("got %q, %v; want %q, ErrBroken", out, err, tc.out)
			}
		})
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(t, dir, ReadOptions{Tail: -1}); err == nil {
		t.Error("a directory was read")
	}
}

// TestReaderLeavesHalfALine: what a power cut left is printed as far as it is
// whole, and what a later run writes is not spoilt.
func TestReaderLeavesHalfALine(t *testing.T) {
	whole := stamp + "stdout F whole\n"
	for _, half := range []string{"2024", stamp + "stdout F hal", stamp, strings.Repeat("\x00", 3*readSize), stamp + "stdout P " + strings.Repeat("x", 70_000)} {
		w := newWriter(t, DefaultLimits())
		if err := os.WriteFile(filepath.Join(w.dir, "log"), []byte(whole+half), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, o := range []ReadOptions{{Tail: -1}, {Tail: 1}, {Tail: -1, Follow: true}} {
			if out, _, err := read(t, w.dir, o); err != nil || out != "whole\n" {
				t.Errorf("%.60q: got %q, %v", half, out, err)
			}
		}
		follower, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := follower.Copy(t.Context(), &out, nil); err != nil {
			t.Fatal(err)
		}
		put(t, w, "1:next\n")
		if err := errors.Join(follower.Copy(t.Context(), &out, nil), follower.Close()); err != nil || out.String() != "whole\nnext\n" {
			t.Errorf("%.60q: follower has %q, %v", half, out.String(), err)
		}
		if got := readAll(t, w.dir); got != "whole\nnext\n" {
			t.Errorf("%.60q: then %q", half, got)
		}
	}
}

// TestReaderEndsWhereTheLogEnded: without Follow a fast writer doesn't keep it.
func TestReaderEndsWhereTheLogEnded(t *testing.T) {
	for _, tail := range []int{-1, 2} {
		w := newWriter(t, Limits{Bytes: 100, Files: 100})
		put(t, w, "1:a\n", "1:b\n")
		r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: tail})
		if err != nil {
			t.Fatal(err)
		}
		put(t, w, "1:c\n", "1:d\n")
		var out bytes.Buffer
		if err := errors.Join(r.Copy(t.Context(), &out, nil), r.Close()); err != nil || out.String() != "a\nb\n" {
			t.Errorf("got %q, %v", out.String(), err)
		}
	}
}

// TestHeldFilesStay: until the reader has read them, and no longer.
func TestHeldFilesStay(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 100, Files: 1})
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	var want, got bytes.Buffer
	for i := range 100 {
		fmt.Fprintf(&want, "line %d\n", i)
		put(t, w, fmt.Sprintf("1:line %d\n", i))
		if i == 0 {
			if err := r.Copy(t.Context(), &got, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if numbers, err := list(w.dir); err != nil || len(numbers) < 40 || numbers[0] != 0 {
		t.Errorf("kept %v, %v: want all", numbers, err)
	}
	if err := r.Copy(t.Context(), &got, nil); err != nil || got.String() != want.String() {
		t.Errorf("got %q, %v, want %q", got.String(), err, want.String())
	}
	if numbers, err := list(w.dir); err != nil || len(numbers) != 2 {
		t.Errorf("all was read, and %v stay, %v", numbers, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestGoneReaderKeepsNothing: its lock goes with it.
func TestGoneReaderKeepsNothing(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 100, Files: 1})
	put(t, w, "1:a\n")
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: 1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.files[0].file.Close() // as a kill does
	for range 20 {
		put(t, w, "1:"+strings.Repeat("x", 60)+"\n")
	}
	if numbers, err := list(w.dir); err != nil || len(numbers) != 2 {
		t.Errorf("%v stay, %v", numbers, err)
	}
}

// TestFollowerOutlivesRemoval: it has all files that were begun open.
func TestFollowerOutlivesRemoval(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 100, Files: 1})
	put(t, w, "1:0\n")
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	want := "0\n"
	for i := range 50 {
		put(t, w, fmt.Sprintf("1:%d\n", i))
		want += fmt.Sprintf("%d\n", i)
	}
	r.Ahead()
	if err := os.RemoveAll(w.dir); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(r.Copy(t.Context(), &out, nil), r.Close()); err != nil || out.String() != want {
		t.Errorf("got %q, %v, want %q", out.String(), err, want)
	}
}

// TestFirstWordsAreHeld: of a container that wrote nothing, writes its last
// words and is removed.
func TestFirstWordsAreHeld(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: 0, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, "1:last words")
	if err := errors.Join(w.Close(), os.RemoveAll(w.dir)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(r.Copy(t.Context(), &out, nil), r.Close()); err != nil || out.String() != "last words" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

// TestLaggingReadersAreKnown: Close waits for those that have not the last file
// yet, and not for those that have it and are slow.
func TestLaggingReadersAreKnown(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 100, Files: 1})
	put(t, w, "1:0\n")
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 20 {
		put(t, w, "1:x\n")
	}
	if !lagging(w.dir, w.number) {
		t.Error("a reader of the first file doesn't lag")
	}
	r.Ahead()
	if lagging(w.dir, w.number) {
		t.Error("a reader that has all files lags")
	}
	other := newWriter(t, Limits{Bytes: 100, Files: 9})
	put(t, other, "1:x\n", "1:y\n", "1:z\n", "1:z\n", "1:z\n")
	if lagging(other.dir, other.number) {
		t.Error("without readers one lags")
	}
}

// TestReaderTellsAGap: a full disk took what it had not read.
func TestReaderTellsAGap(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 100, Files: 1})
	put(t, w, "1:a\n")
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 20 {
		put(t, w, "1:"+strings.Repeat("x", 60)+"\n")
	}
	if !prune(w.dir, w.limits, true) {
		t.Fatal("nothing was deleted")
	}
	var out bytes.Buffer
	if err := r.Copy(t.Context(), &out, nil); !errors.Is(err, ErrGap) || out.String() != "a\n" {
		t.Errorf("got %q, %v, want ErrGap", out.String(), err)
	}
}

func TestReaderObeysItsContext(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	put(t, w, "1:a\n")
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Copy(ctx, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
