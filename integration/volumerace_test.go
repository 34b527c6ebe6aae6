package integration

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

var raceStarts = flag.Int("race.starts", 8, "how many containers TestAttackerSwapsSources starts against each swap")

const secretText = "the host's secret"

// exchange swaps two names again and again until stop is closed.
func exchangeNames(stop <-chan struct{}, a, b string) {
	for {
		select {
		case <-stop:
			return
		default:
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		}
	}
}

// TestAttackerSwapsSources starts containers while another process swaps the
// source, a directory on the way to it, or a directory of a volume's subpath
// for a symlink to what the container must not see. A start may fail; what it
// may not do is show it.
func TestAttackerSwapsSources(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		write(t, filepath.Join(h.dir, "secret/in/file"), secretText)
		write(t, filepath.Join(h.dir, "way/in/file"), "plain")
		h.run(t, "nook", "run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "mkdir -p /v/a/in && echo plain >/v/a/in/file")
		volume := filepath.Join(h.root, "volumes/vol/_data")
		for _, tc := range []struct {
			name        string
			honest, lie string // what is swapped
			target      string
			flag        []string
		}{
			{"the source", "way/in", "way/lie", "../secret/in", []string{"-v", h.dir + "/way/in:/x:ro"}},
			{"the way to it", "way", "lie", "secret", []string{"-v", h.dir + "/way/in:/x:ro"}},
			{"a subpath", volume + "/a", volume + "/lie", h.dir + "/secret", []string{"--mount", "src=vol,dst=/x,ro,volume-subpath=a/in"}},
			{"a subpath, up", volume + "/a", volume + "/lie2", "../../../../secret", []string{"--mount", "src=vol,dst=/x,ro,volume-subpath=a/in"}},
		} {
			t.Run(tc.name, func(t *testing.T) { swapped(t, h, tc.honest, tc.lie, tc.target, tc.flag) })
		}
	})
}

func swapped(t *testing.T, h *host, honest, lie, target string, mount []string) {
	absolute := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(h.dir, name)
	}
	honest, lie = absolute(honest), absolute(lie)
	// What a path leads to when a container is made is what its user asked for.
	h.run(t, "nook", append(append([]string{"create", "--name", "victim"}, mount...), "busybox", "cat", "/x/file")...)
	defer h.run(t, "nook", "rm", "victim")
	h.run(t, "ln", "-s", target, lie)
	stop := make(chan struct{})
	var loop sync.WaitGroup
	loop.Go(func() { exchangeNames(stop, honest, lie) })
	starts := *raceStarts
	if testing.Short() {
		starts = (starts + 3) / 4
	}
	var read, refused int
	for range starts {
		out, err := h.cmd("nook", "start", "-a", "victim").CombinedOutput()
		if strings.Contains(string(out), secretText) {
			t.Errorf("a container saw the host's: %s", out)
			break
		}
		if err == nil {
			read++
		} else {
			refused++
		}
	}
	close(stop)
	loop.Wait()
	if st, err := os.Lstat(honest); err == nil && st.Mode()&os.ModeSymlink != 0 {
		if err := unix.Renameat2(unix.AT_FDCWD, honest, unix.AT_FDCWD, lie, unix.RENAME_EXCHANGE); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d saw their file, %d were refused", read, refused)
}

// TestBindOfASocket: who listens on the host is reached by the same file.
func TestBindOfASocket(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		path := filepath.Join(h.dir, "s")
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		for _, mount := range [][]string{{"-v", path + ":/run/s:ro"}, {"--mount", "type=bind,src=" + path + ",dst=/s"}} {
			inside := "/s"
			if mount[0] == "-v" {
				inside = "/run/s"
			}
			argv := append(append([]string{"run", "--rm"}, mount...), "busybox", "sh", "-c", "test -S "+inside+" && stat -c %i "+inside)
			if got, want := strings.TrimSpace(h.run(t, "nook", argv...)), strconv.FormatUint(st.Ino, 10); got != want {
				t.Errorf("%v: %q, want the inode %s", mount, got, want)
			}
		}
	})
}
