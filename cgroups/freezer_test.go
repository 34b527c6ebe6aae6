package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoFreezer: what can't be one is said, and nothing is left of the try.
// (containers/pause tests a real one.)
func TestNoFreezer(t *testing.T) {
	own := t.TempDir()
	if _, err := newFreezer(own, "plain"); !errors.Is(err, ErrNoFreezer) || !errors.Is(err, unix.ENOENT) {
		t.Errorf("in a directory that is no group: got %v, want %v", err, ErrNoFreezer)
	}
	if left, _ := os.ReadDir(own); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := newFreezer(filepath.Join(own, "missing"), "x"); !errors.Is(err, ErrNoFreezer) {
		t.Errorf("below a group that isn't there: got %v", err)
	}
	if _, err := ownUnified(own, "/proc/self/cgroup"); !errors.Is(err, ErrNoFreezer) {
		t.Errorf("without cgroups: got %v", err)
	}
}

func TestMembers(t *testing.T) {
	f := &Freezer{t.TempDir()}
	for text, want := range map[string]int{"": 0, "1\n20\n300\n": 3, "0\n0\n7\n": 2} {
		if err := os.WriteFile(filepath.Join(f.dir, "cgroup.procs"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Members(); err != nil || len(got) != want {
			t.Errorf("%q: got %v, %v, want %d", text, got, err, want)
		}
	}
	if err := (&Freezer{"/no/such/group"}).Remove(); err != nil {
		t.Errorf("remove one that is gone: %v", err)
	}
}
