package logs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// follow copies until done is closed and everything was read.
func follow(t *testing.T, r *Reader, w *Watch, done <-chan struct{}, stdout, stderr io.Writer) error {
	for {
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		if err := r.Copy(t.Context(), stdout, stderr); err != nil || ended {
			return err
		}
		select {
		case <-done:
		case <-w.C:
		}
	}
}

// slow is a writer that gives the others their turn.
type slow struct {
	hash.Hash
	turns int
}

func (s *slow) Write(p []byte) (int, error) {
	for range s.turns {
		runtime.Gosched()
	}
	return s.Hash.Write(p)
}

// stall doesn't take a byte before it is let go.
type stall struct {
	hash.Hash
	until <-chan struct{}
}

func (s *stall) Write(p []byte) (int, error) {
	<-s.until
	return s.Hash.Write(p)
}

// TestFollowersLoseNothing: pieces of all lengths in tiny files that are
// rotated under readers of all speeds.
func TestFollowersLoseNothing(t *testing.T) {
	total := 50 << 20
	if testing.Short() {
		total = 8 << 20
	}
	w := newWriter(t, Limits{Bytes: 200 << 10, Files: 2})
	w.now = time.Now
	done, written := make(chan struct{}), make(chan struct{})
	type follower struct{ out, err hash.Hash }
	var (
		all    []follower
		wg     sync.WaitGroup
		stalls = 1
	)
	for i := range 6 {
		r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		watch := NewWatch(w.dir, r.Ahead)
		f := follower{sha256.New(), sha256.New()}
		all = append(all, f)
		var out, errs io.Writer = &slow{f.out, i * 100}, &slow{f.err, i * 10}
		if i < stalls {
			out = &stall{f.out, written}
		}
		wg.Go(func() {
			defer watch.Close()
			if err := errors.Join(follow(t, r, watch, done, out, errs), r.Close()); err != nil {
				t.Errorf("follower %d: %v", i, err)
			}
		})
	}
	want := follower{sha256.New(), sha256.New()}
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano()))) //nolint:gosec // lengths, not secrets
	data := make([]byte, 300<<10)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	for n := 0; n < total; {
		size := 1 + random.IntN(1<<random.IntN(18))
		start := random.IntN(len(data) - size)
		piece := data[start : start+size]
		n += size
		s, sum := Stdout, want.out
		if random.IntN(4) == 0 {
			s, sum = Stderr, want.err
		}
		sum.Write(piece)
		if err := w.Write(s, piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	close(written)
	close(done)
	wg.Wait()
	for i, f := range all {
		if got, want := sum(f.out), sum(want.out); got != want {
			t.Errorf("follower %d: stdout %s, want %s", i, got, want)
		}
		if got, want := sum(f.err), sum(want.err); got != want {
			t.Errorf("follower %d: stderr %s, want %s", i, got, want)
		}
	}
	if numbers, err := list(w.dir); err != nil || len(numbers) != w.limits.Files+1 {
		t.Errorf("left: %v, %v; want %d files", numbers, err, w.limits.Files+1)
	}
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }

// TestReadersComeAndGo while files are rotated away: each sees a run of lines
// without a hole, up to the end as it was.
func TestReadersComeAndGo(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 2000, Files: 1})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, o := range []ReadOptions{{Tail: -1}, {Tail: 30}, {Tail: -1, Follow: true}, {Tail: 5, Follow: true}} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var out bytes.Buffer
				r, err := NewReader(w.dir, w.limits, o)
				if err == nil {
					err = errors.Join(r.Copy(t.Context(), &out, nil), r.Close())
				}
				if err != nil {
					t.Errorf("%+v: %v", o, err)
					return
				}
				if first, ok := consecutive(out.Bytes()); !ok {
					t.Errorf("%+v: a hole after line %d: %q", o, first, out.Bytes())
					return
				}
			}
		})
	}
	for i := range 20_000 {
		put(t, w, "1:"+hex.EncodeToString([]byte{byte(i >> 16), byte(i >> 8), byte(i)})+"\n")
	}
	close(stop)
	wg.Wait()
}

// consecutive looks for lines that don't follow each other.
func consecutive(text []byte) (at int, ok bool) {
	last := -1
	for line := range bytes.Lines(text) {
		n, err := hex.DecodeString(string(bytes.TrimSuffix(line, []byte("\n"))))
		if err != nil || len(n) != 3 {
			return last, false
		}
		this := int(n[0])<<16 | int(n[1])<<8 | int(n[2])
		if last >= 0 && this != last+1 {
			return last, false
		}
		last = this
	}
	return last, true
}

// TestFullDisk: room is made by what is kept for a reader only; then a write
// is an error, half a line of it is not left, and later ones go on.
func TestFullDisk(t *testing.T) {
	w := newWriter(t, Limits{Bytes: 100, Files: 1})
	put(t, w, "1:a\n")
	r, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 20 {
		put(t, w, "1:"+string(bytes.Repeat([]byte("x"), 60))+"\n")
	}
	// The next file can't be written to.
	if err := os.Symlink("/dev/full", path(w.dir, w.number+1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Stdout, bytes.Repeat([]byte("y"), 80)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
	if numbers, err := list(w.dir); err != nil || len(numbers) != 2 {
		t.Errorf("kept %v, %v: want what the limits allow", numbers, err)
	}
	if err := os.Remove(path(w.dir, w.number)); err != nil {
		t.Fatal(err)
	}
	put(t, w, "1:room again\n")
	if out, _, err := read(t, w.dir, ReadOptions{Tail: 1}); err != nil || out != "room again\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// roomFor lets the file of w grow by so many bytes only while do runs:
// RLIMIT_FSIZE cuts a write in the middle, as a full disk does, with EFBIG.
func roomFor(t *testing.T, w *Writer, bytes int, do func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: uint64(w.size) + uint64(bytes), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	do()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
}

// TestWriteIsCutShort: half a line is no line, for followers too.
func TestWriteIsCutShort(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	put(t, w, "1:before\n")
	follower, err := NewReader(w.dir, w.limits, ReadOptions{Tail: -1, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close()
	roomFor(t, w, 2*(textAt+len("line\n"))+7, func() { err = w.Write(Stdout, []byte("line\nline\nline\nline\n")) })
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("got %v, want EFBIG", err)
	}
	var out bytes.Buffer
	if err := follower.Copy(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	put(t, w, "1:after\n")
	if err := follower.Copy(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	const want = "before\nline\nline\nafter\n"
	if got := readAll(t, w.dir); got != want || out.String() != want {
		t.Errorf("got %q, follower %q; want %q", got, out.String(), want)
	}
}

// TestWriteGoesOnAfterTheCut: with what was not written whole.
func TestWriteGoesOnAfterTheCut(t *testing.T) {
	w := newWriter(t, DefaultLimits())
	put(t, w, "1:before\n")
	line := func(text string) []byte { return append(appendHead(nil, at(0), Stdout), text...) }
	w.buf = bytes.Join([][]byte{line("one\n"), line("two\n"), line("three\n")}, nil)
	var err error
	roomFor(t, w, len(line("one\n"))+7, func() { err = w.append() })
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("got %v, want EFBIG", err)
	}
	if err := w.append(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, w.dir); got != "before\none\ntwo\nthree\n" {
		t.Errorf("got %q", got)
	}
}

// TestBackwardOfAFileThatShrank, as half a line was cut off.
func TestBackwardOfAFileThatShrank(t *testing.T) {
	name := path(t.TempDir(), 0)
	if err := os.WriteFile(name, []byte("one\ntwo"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{7, 8, 1000, 3 * blockSize} {
		b := backward{file: f}
		if got, err := b.newline(size); err != nil || got != 3 {
			t.Errorf("before %d: got %d, %v, want 3", size, got, err)
		}
	}
}

func TestWatchSees(t *testing.T) {
	for name, without := range map[string]bool{"inotify": false, "no more instances": true} {
		t.Run(name, func(t *testing.T) {
			if without {
				useUpInotify(t)
			}
			w := newWriter(t, Limits{Bytes: 10, Files: 9})
			begun := make(chan struct{}, 100)
			watch := NewWatch(w.dir, func() {
				select {
				case begun <- struct{}{}:
				default:
				}
			})
			defer watch.Close()
			if (watch.events == nil) != without {
				t.Fatalf("inotify is used: %v", watch.events != nil)
			}
			put(t, w, "1:a\n")
			<-begun
			<-watch.C
			if !without && watch.Changed() {
				t.Error("a log that grew is told as another change")
			}
			put(t, w, "1:b\n")
			<-begun
			if err := os.Rename(path(w.dir, 0), w.dir+"/state.json"); err != nil {
				t.Fatal(err)
			}
			await(watch)
			if err := os.RemoveAll(w.dir); err != nil {
				t.Fatal(err)
			}
			await(watch)
		})
	}
}

// await returns when something other than the log changed.
func await(w *Watch) {
	for !w.Changed() {
		<-w.C
	}
}

// useUpInotify takes all instances that the user may have, or all descriptors.
func useUpInotify(t *testing.T) {
	t.Helper()
	for {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(stamp+"stdout F a\n"+stamp+"stderr P b\n"), 1, true)
	f.Add([]byte(stamp+"stdout F a\n"+stamp+"stder"), -1, false)
	f.Add([]byte("\n\n\x00"), 2, false)
	f.Fuzz(func(t *testing.T, data []byte, tail int, times bool) {
		dir := t.TempDir()
		if err := os.WriteFile(path(dir, 0), data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := read(t, dir, ReadOptions{Tail: tail, Timestamps: times})
		if err != nil && !errors.Is(err, ErrBroken) {
			t.Error(err)
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add([]byte(stamp + "stdout F a\n"))
	f.Add([]byte(stamp + "stderr P "))
	f.Fuzz(func(t *testing.T, line []byte) {
		h, ok := parseHead(line)
		if !ok {
			return
		}
		s, tag := Stdout, byte(whole)
		if h.stderr {
			s = Stderr
		}
		if h.partial {
			tag = partial
		}
		want := appendHead(nil, time.Time{}, s)
		want[tagAt] = tag
		if string(line[stampLength:textAt]) != string(want[stampLength:]) {
			t.Errorf("%q was taken as %+v", line, h)
		}
	})
}

// FuzzWriteAndRead: what was written is read, however it was cut.
func FuzzWriteAndRead(f *testing.F) {
	f.Add([]byte("a\nb"), []byte("\n\n\x00"), uint8(3), uint16(50))
	f.Fuzz(func(t *testing.T, out, errs []byte, step uint8, size uint16) {
		dir := t.TempDir()
		limits := Limits{Bytes: int64(size), Files: 1 << 20}
		w := NewWriter(dir, limits)
		defer w.Close()
		for o, e := out, errs; len(o)+len(e) > 0; {
			n, m := min(len(o), int(step)+1), min(len(e), int(step)/2+1)
			if err := errors.Join(w.Write(Stdout, o[:n]), w.Write(Stderr, e[:m])); err != nil {
				t.Fatal(err)
			}
			o, e = o[n:], e[m:]
		}
		for _, tail := range []int{-1, len(out) + len(errs)} {
			r, err := NewReader(dir, limits, ReadOptions{Tail: tail})
			if err != nil {
				t.Fatal(err)
			}
			var gotOut, gotErr bytes.Buffer
			if err := errors.Join(r.Copy(t.Context(), &gotOut, &gotErr), r.Close()); err != nil ||
				!bytes.Equal(gotOut.Bytes(), out) || !bytes.Equal(gotErr.Bytes(), errs) {
				t.Errorf("got %q and %q, %v", gotOut.Bytes(), gotErr.Bytes(), err)
			}
		}
	})
}
