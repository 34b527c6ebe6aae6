package containers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSweepTakesWhatHasNoRecordAndNobodyHolds(t *testing.T) {
	root := t.TempDir()
	dir := Open(root)
	make64 := func(c string) Container {
		ct := dir.At(strings.Repeat(c, idLength))
		if err := os.MkdirAll(filepath.Join(ct.Path, "work"), 0o700); err != nil {
			t.Fatal(err)
		}
		return ct
	}
	orphan, held, whole := make64("a"), make64("b"), make64("c")
	if err := os.WriteFile(filepath.Join(whole.Path, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := held.lockDir(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "names"), 0o700); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]bool) {
		t.Helper()
		if err := dir.Sweep(); err != nil {
			t.Fatal(err)
		}
		for path, stays := range want {
			if _, err := os.Lstat(path); (err == nil) != stays {
				t.Errorf("%s: %v, want it to stay: %v", filepath.Base(path), err, stays)
			}
		}
	}
	names := filepath.Join(root, "names")
	check(map[string]bool{orphan.Path: false, held.Path: true, whole.Path: true, names: true})
	unlock.Release()
	check(map[string]bool{held.Path: false, whole.Path: true, names: true})
}
