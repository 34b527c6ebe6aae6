package treetar

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// manyFiles is a tree that is more than one batch, with files of all kinds and
// sizes.
const manyFiles = `
for d in a b c; do
	mkdir $d
	for i in $(seq 150); do echo "the file $i of $d" >$d/$i; done
	head -c 65536 /dev/urandom >$d/small
	head -c 65537 /dev/urandom >$d/large
	head -c 700000 /dev/urandom >$d/larger
	: >$d/empty
	ln -s empty $d/link
	mkfifo $d/fifo
done
truncate -s 3M hole
ln a/7 c/again; ln a/larger b/large-again; ln c/9 c/z`

// TestAheadWritesTheSame: what several goroutines read and write is to the byte
// what one does.
func TestAheadWritesTheSame(t *testing.T) {
	base := made(t, manyFiles)
	if err := unix.Setxattr(filepath.Join(base, "b/9"), "user.mine", []byte("x"), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		t.Fatal(err)
	}
	write := func(ahead bool) ([]byte, int64) {
		var out bytes.Buffer
		w := NewWriter(&out)
		if w.Still = ahead; ahead {
			w.Ahead(t.Context())
			defer w.Stop()
		}
		if err := errors.Join(w.Tree(t.Context(), open(t, base, 0), "."), w.Close()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes(), w.Bytes()
	}
	want, size := write(false)
	for range 5 {
		if got, n := write(true); !bytes.Equal(got, want) || n != size {
			t.Fatalf("%d bytes with %d of content, want %d with %d", len(got), n, len(want), size)
		}
	}
}

// brokenAfter is a writer that has no more room.
type brokenAfter struct{ left int }

func (b *brokenAfter) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// TestAheadEndsWithTheFirstError: an error of writing is told, and no file stays
// open, whenever it comes.
func TestAheadEndsWithTheFirstError(t *testing.T) {
	root := open(t, made(t, manyFiles), 0)
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := count()
	for _, room := range []int{0, 512, 100_000, 500_000, 1_000_000} {
		w := NewWriter(&brokenAfter{room})
		w.Ahead(t.Context())
		err := w.Tree(t.Context(), root, ".")
		if err == nil {
			err = w.Close()
		}
		w.Stop()
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("room for %d bytes: got %v", room, err)
		}
	}
	if after := count(); after != before {
		t.Errorf("%d files are open, before there were %d", after, before)
	}
}

// TestAheadWithFewDescriptors: where few files may be open, it has fewer.
func TestAheadWithFewDescriptors(t *testing.T) {
	root := open(t, made(t, manyFiles), 0)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: 64, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(io.Discard)
	w.Ahead(t.Context())
	err := errors.Join(w.Tree(t.Context(), root, "."), w.Close())
	if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil || back != nil {
		t.Errorf("%v, %v", err, back)
	}
}

// TestAheadPassesOverWhatWasReplaced: a fifo in a file's place is no entry, and
// those around it are.
func TestAheadPassesOverWhatWasReplaced(t *testing.T) {
	base := made(t, "mkfifo fifo; echo x >file")
	d := open(t, base, 0)
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), "file", &st, 0); err != nil {
		t.Fatal(err)
	}
	write := func(ahead bool, names ...string) []byte {
		var out bytes.Buffer
		w := NewWriter(&out)
		if ahead {
			w.Ahead(t.Context())
			defer w.Stop()
		}
		for i, name := range names {
			if err := w.Leaf(t.Context(), int(d.Fd()), name, string(rune('a'+i)), &st, Owned{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	want := write(false, "file")
	if got := write(true, "file", "fifo"); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}
