package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// only tells whether a directory holds the one file and nothing half made.
func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory has %v, want %v", got, want)
	}
}

func TestWriteReplaces(t *testing.T) {
	for _, d := range []Durability{Volatile, Durable} {
		dir := t.TempDir()
		file := filepath.Join(dir, "state.json")
		for i, mode := range []fs.FileMode{0o600, 0o644, 0o400, 0o600} {
			want := bytes.Repeat([]byte{byte('a' + i)}, 1000-300*i)
			if err := Write(file, want, mode, d); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
			}
			if st, err := os.Stat(file); err != nil || st.Mode() != mode {
				t.Errorf("mode %v, %v; want %v", st.Mode(), err, mode)
			}
			only(t, dir, "state.json")
		}
	}
}

// TestReaderSeesOldOrNew: never a part, never nothing.
func TestReaderSeesOldOrNew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	contents := [][]byte{bytes.Repeat([]byte("a"), 100_000), bytes.Repeat([]byte("b"), 50_000)}
	if err := Write(file, contents[0], 0o600, Volatile); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 200 {
			if err := Write(file, contents[i%2], 0o600, Volatile); err != nil {
				t.Error(err)
			}
		}
	})
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
	}
	wg.Wait()
}

// TestErrorLeavesTheOldFile: and nothing beside it.
func TestErrorLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	occupied := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(occupied, []byte("x"), 0o600, Durable); err == nil || !strings.Contains(err.Error(), occupied) {
		t.Errorf("over a directory: %v, want an error with its name", err)
	}
	only(t, dir, "occupied")
	only(t, occupied, "child")
	missing := filepath.Join(dir, "no", "file")
	if err := Write(missing, nil, 0o600, Durable); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: %v, want ErrNotExist", err)
	}
	if err := WriteJSON(filepath.Join(dir, "json"), func() {}, 0o600, Durable); err == nil {
		t.Error("of what JSON can't hold: no error")
	}
	only(t, dir, "occupied")
}

// TestRelativePath: the temporary file lies beside the target there too.
func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Write("f", []byte("x"), 0o600, Durable); err != nil {
		t.Fatal(err)
	}
	only(t, ".", "f")
}

// TestWriteReplacesALink: the target is not written through.
func TestWriteReplacesALink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(target, []byte("old"), 0o600), os.Symlink("target", link)); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("new"), 0o600, Volatile); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(target); string(got) != "old" {
		t.Errorf("the link's target has %q", got)
	}
}

func TestWriteJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := WriteJSON(file, map[string]int{"a": 1}, 0o600, Volatile); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "{\n  \"a\": 1\n}\n" {
		t.Errorf("got %q", got)
	}
}

func TestSyncDirOfNothing(t *testing.T) {
	if err := SyncDir("/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}
