package lockfile

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// holderVariable makes this test binary take a lock and hold it until its
// standard input ends.
const holderVariable = "NOOK_TEST_LOCK_HOLDER"

func TestMain(m *testing.M) {
	if path := os.Getenv(holderVariable); path != "" {
		if _, err := Lock(context.Background(), path); err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("held\n")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func lockPath(t *testing.T) string { return filepath.Join(t.TempDir(), "lock") }

func TestTryLockExcludes(t *testing.T) {
	path := lockPath(t)
	unlock, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrHeld) {
		t.Errorf("a second lock: %v, want ErrHeld", err)
	}
	unlock()
	again, err := TryLock(path)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	again()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the lock's file: %v, %v; want it to stay, 0600", st, err)
	}
}

// TestLockIsTheProcesses: it excludes another process, and the kernel drops
// it when its holder is killed.
func TestLockIsTheProcesses(t *testing.T) {
	path := lockPath(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holderVariable+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder said %q, %v", line, err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrHeld) {
		t.Errorf("while another process has it: %v, want ErrHeld", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	unlock, err := TryLock(path)
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	unlock()
}

func TestLockWaitsUntilItsContextEnds(t *testing.T) {
	path := lockPath(t)
	unlock, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	before := openFiles(t)
	for name, lock := range map[string]func(context.Context, string) (func(), error){"Lock": Lock, "RLock": RLock} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := lock(ctx, path); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want Canceled", name, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := lock(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want DeadlineExceeded", name, err)
		}
		cancel()
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestLockPassesFromOneToTheNext(t *testing.T) {
	path := lockPath(t)
	const many, rounds = 8, 25
	var wg sync.WaitGroup
	// Atomic for the race detector, which doesn't know flock(2) as an order.
	var inside, total atomic.Int32
	for range many {
		wg.Go(func() {
			for range rounds {
				unlock, err := Lock(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n != 1 {
					t.Errorf("%d hold the lock", n)
				}
				total.Add(1)
				inside.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if n := total.Load(); n != many*rounds {
		t.Errorf("counted %d, want %d", n, many*rounds)
	}
}

func TestSharedLocks(t *testing.T) {
	path := lockPath(t)
	a, err := RLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := RLock(t.Context(), path)
	if err != nil {
		t.Fatalf("a second reader: %v", err)
	}
	a()
	if _, err := TryLock(path); !errors.Is(err, ErrHeld) {
		t.Errorf("a writer beside a reader: %v, want ErrHeld", err)
	}
	b()
	c, err := TryLock(path)
	if err != nil {
		t.Fatalf("a writer after the readers: %v", err)
	}
	c()
}

func TestLockInNoDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no", "lock")
	for name, lock := range map[string]func() (func(), error){
		"TryLock": func() (func(), error) { return TryLock(path) },
		"Lock":    func() (func(), error) { return Lock(t.Context(), path) },
	} {
		if _, err := lock(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want ErrNotExist", name, err)
		}
	}
}
