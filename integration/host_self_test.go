package integration

import (
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
)

// TestHostSeesWhatIsLeft: a leak of each kind is found, or the check after
// every test would be worth nothing.
func TestHostSeesWhatIsLeft(t *testing.T) {
	h := newHost(t.TempDir(), "", mode{})
	if err := h.make(); err != nil {
		t.Fatal(err)
	}
	if left := h.left(0); len(left) > 0 {
		t.Fatalf("an empty directory has %q left", left)
	}
	for _, name := range []string{"containers/0123", "containers/names/web", "layers/.staging/half", "images/index.json.tmp1"} {
		write(t, filepath.Join(h.root, name), "")
	}
	sees(t, h, "containers/0123", "containers/names/web", "layers/.staging/half", "images/index.json.tmp1")

	h.keeps = true
	for _, l := range h.left(0) {
		if strings.Contains(l, "containers/") {
			t.Errorf("%s is told of a test that keeps its containers", l)
		}
	}
	t.Run("process", func(t *testing.T) {
		for what, cmd := range map[string]*exec.Cmd{
			"environ": h.cmd("cat"), "cwd is ": {Path: "/bin/cat", Dir: h.dir, Env: []string{"A=1", "PWD="}},
		} {
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// Start returns when the exec closed its pipe, and the kernel sets the
			// new image's environment only after that: an answer is from later.
			echoed(t, in, out)
			sees(t, h, what)
			_ = in.Close()
			_ = cmd.Wait()
		}
	})
	t.Run("mount", func(t *testing.T) {
		testenv.Need(t, "root", testenv.Root)
		dir := filepath.Join(h.dir, "home")
		if out, err := exec.Command("mount", "-t", "tmpfs", "leak", dir).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v: %s", err, out)
		}
		defer func() { _ = exec.Command("umount", dir).Run() }()
		sees(t, h, "mount: ")
	})
}

// echoed returns when the cat at the other ends has given a line back.
func echoed(t *testing.T, in io.Writer, out io.Reader) {
	t.Helper()
	if _, err := io.WriteString(in, "there\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("there\n"))); err != nil {
		t.Fatal(err)
	}
}

func sees(t *testing.T, h *host, wanted ...string) {
	t.Helper()
	left := strings.Join(h.left(0), "\n")
	for _, w := range wanted {
		if !strings.Contains(left, w) {
			t.Errorf("%q is left and not told; told is\n%s", w, left)
		}
	}
}
