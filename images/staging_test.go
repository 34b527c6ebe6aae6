package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nook/internal/testenv"
)

func TestLoadSweepsWhatAKillLeft(t *testing.T) {
	s := newStore(t)
	stage, err := s.stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file, err := stage.keepJSON("left over")
	if err != nil {
		t.Fatal(err)
	}
	// Killed between the renames and the index: the journal is there, the
	// lock is not held.
	if err := os.WriteFile(filepath.Join(stage.dir, journalFile), mustJSON(t, []string{file.digest}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file.path, s.blobPath(file.digest)); err != nil {
		t.Fatal(err)
	}
	alive, err := s.stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stage.dir); err != nil {
		t.Errorf("the directory of a living process: %v", err)
	}
	alive.close()
	stage.unlock()
	cut := s.path("." + indexFile + ".tmp-1") // killed while it wrote the index
	if err := os.WriteFile(cut, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loadImage(t, s, small())
	for _, path := range []string{stage.dir, s.blobPath(file.digest), cut} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want it swept", path, err)
		}
	}
}

func TestCommitTakesBackWhatItMoved(t *testing.T) {
	s := newStore(t)
	stage, err := s.stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stage.close()
	first, last := "", ""
	for _, body := range []string{"one", "two"} {
		file, err := stage.keepJSON(body)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" || file.digest < first {
			first = file.digest
		}
		last = max(last, file.digest)
	}
	// The second rename doesn't succeed.
	if err := os.MkdirAll(filepath.Join(s.blobPath(last), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := stage.commit(t.Context(), func(*index) error { return nil }); err == nil {
		t.Error("got no error")
	}
	if _, err := os.Stat(s.blobPath(first)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the blob that was moved: got %v, want it gone", err)
	}
}

func TestCommitWaitsForTheLock(t *testing.T) {
	s := newStore(t)
	stage, err := s.stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stage.close()
	unlock, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := stage.commit(ctx, func(*index) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// fullVariable says that this process is the child of TestLoadOnFullDisk.
const fullVariable = "NOOK_TEST_FULL_DISK"

func TestLoadOnFullDisk(t *testing.T) {
	if dir := os.Getenv(fullVariable); dir != "" {
		loadOnFullDisk(t, dir)
		return
	}
	testenv.Need(t, "tmpfs", testenv.Tmpfs)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLoadOnFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullVariable+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestLoadOnFullDisk") {
		t.Errorf("on a tmpfs of its own: %v\n%s", err, out)
	}
}

func loadOnFullDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	s, err := Open(filepath.Join(dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	archive := bundleOf(t, one("x:1", strings.Repeat("x", 1<<20)).WriteOCI).tar()
	_, err = s.Load(t.Context(), LoadOptions{Input: bytes.NewReader(archive)})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	wantError(t, err, "no space left on device", "make room in "+s.dir)
	wantEmpty(t, s)
}
