package integration

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// TestAttackerGetsNoSecret starts containers with a secret and a directory on
// /run that another process has too, and in which it swaps the mount point for
// a symlink all the time. A start may fail; no file is ever written to where
// the symlink leads.
func TestAttackerGetsNoSecret(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		run, stolen := filepath.Join(h.dir, "both"), filepath.Join(h.dir, "both/stolen")
		for _, dir := range []string{"both", "both/secrets", "both/stolen"} {
			if err := os.Mkdir(filepath.Join(h.dir, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("stolen", filepath.Join(run, "lie")); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(h.dir, "key"), secretText)
		stop := make(chan struct{})
		var loop sync.WaitGroup
		loop.Go(func() { exchangeNames(stop, filepath.Join(run, "secrets"), filepath.Join(run, "lie")) })
		starts := *raceStarts
		if testing.Short() {
			starts = (starts + 3) / 4
		}
		seen := 0
		for range starts {
			out, err := h.cmd("nook", "run", "--rm", "-v", run+":/run", "--secret", "id=key,src="+h.dir+"/key", "busybox", "cat", "/run/secrets/key").CombinedOutput()
			if err == nil && strings.Contains(string(out), secretText) {
				seen++
			}
		}
		close(stop)
		loop.Wait()
		for _, dir := range []string{stolen, filepath.Join(run, "secrets"), filepath.Join(run, "lie")} {
			left, err := os.ReadDir(dir)
			if err != nil || len(left) > 0 {
				t.Errorf("in %s: %v, %v", dir, left, err)
			}
		}
		t.Logf("%d of %d saw their secret", seen, starts)
	})
}
