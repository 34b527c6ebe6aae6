package integration

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// hostile layers try to reach the directory victim, which is beside the data
// root. up leads there from any directory of a layer, whatever its depth.
func hostile(victim string) []struct {
	name    string
	refused bool // else it is harmless: its paths mean the container's
	entries []testimage.Entry
} {
	up := strings.Repeat("../", 30) + strings.TrimPrefix(victim, "/")
	evil := func(name string) testimage.Entry { return testimage.File(name, 0o644, "evil") }
	type entries = []testimage.Entry
	long := strings.Repeat("n", 4096)
	return []struct {
		name    string
		refused bool
		entries []testimage.Entry
	}{
		{"dot dot", true, entries{evil(up + "/new")}},
		{"dot dot in the middle", true, entries{testimage.Dir("a", 0o755), evil("a/../../../../../" + up + "/new")}},
		{"absolute name", false, entries{evil(victim + "/new")}},
		{"symlink to outside, then through it", false, entries{testimage.Symlink("out", victim), evil("out/new")}},
		{"relative symlink to outside, then through it", false, entries{testimage.Symlink("out", up), evil("out/new")}},
		{"chain of symlinks", false, entries{
			testimage.Symlink("a", up), testimage.Symlink("b", "a"), testimage.Symlink("c", "b"), evil("c/new"), evil("c/file")}},
		{"symlink that replaces a directory", false, entries{
			testimage.Dir("d", 0o755), evil("d/x"), testimage.Symlink("d", victim), evil("d/file")}},
		{"file over a symlink", false, entries{testimage.Symlink("f", victim+"/file"), evil("f")}},
		{"directory over a symlink", false, entries{testimage.Symlink("d", victim), testimage.Dir("d", 0o777), evil("d/new")}},
		{"hard link to outside", true, entries{testimage.Link("stolen", up+"/file"), evil("stolen")}},
		{"hard link to an absolute name", true, entries{testimage.Link("stolen", victim+"/file")}},
		{"hard link through a symlink", true, entries{
			testimage.Symlink("out", victim), testimage.Link("stolen", "out/file")}},
		{"hard link to outside, then over it", false, entries{testimage.Link("stolen", victim+"/file"), evil("stolen")}},
		{"whiteout of the parent", true, entries{evil("d/.wh..")}},
		{"whiteout of the grandparent", true, entries{evil("d/.wh...")}},
		{"whiteout through a symlink", false, entries{testimage.Symlink("out", victim), evil("out/.wh.file")}},
		{"opaque through a symlink", false, entries{testimage.Symlink("out", victim), evil("out/.wh..wh..opq")}},
		{"name too long", true, entries{evil(long)}},
		{"path too long", true, entries{evil(strings.Repeat("dir/", 1500) + "f")}},
	}
}

// TestHostileLayers: nothing outside of a layer is touched, whatever is in it.
func TestHostileLayers(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	eachMode(t, func(t *testing.T, m mode) {
		for i, tc := range hostile("") {
			t.Run(tc.name, func(t *testing.T) {
				h := newTestHost(t, m)
				victim := filepath.Join(h.dir, "victim")
				write(t, filepath.Join(victim, "file"), "precious")
				layer := testimage.Layer{Entries: hostile(victim)[i].entries}
				tryHostile(t, h, layer, tc.refused)
			})
		}
		t.Run("NUL in a name", func(t *testing.T) {
			h := newTestHost(t, m)
			write(t, filepath.Join(h.dir, "victim/file"), "precious")
			tryHostile(t, h, testimage.Layer{Raw: withNUL(t)}, true)
		})
	})
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// withNUL is a layer with a pax path record that has a NUL in it, which
// archive/tar refuses to write: another byte is replaced afterwards.
func withNUL(t *testing.T) []byte {
	t.Helper()
	name := strings.Repeat("x", 200) + "@evil" // long enough for a pax record
	l := testimage.Layer{Entries: []testimage.Entry{{Header: tar.Header{Name: name, Mode: 0o644, Format: tar.FormatPAX}}}}
	raw, err := l.Tar()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(raw, []byte("@evil"), []byte("\x00evil"), 1)
}

// tryHostile loads and runs an image with the layer above busybox.
func tryHostile(t *testing.T, h *host, layer testimage.Layer, refused bool) {
	t.Helper()
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	img.Layers = append(img.Layers, layer)
	archive := filepath.Join(h.dir, "hostile.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(img.WriteDocker(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	before := outside(t, h)
	said, code := h.answer(t, "nook", "load", "-i", archive)
	if code == 0 {
		said, code = h.answer(t, "nook", "run", "--rm", "busybox", "true")
	}
	switch {
	case refused && code != 125:
		t.Errorf("exit code %d, want 125; it said %q", code, said)
	case !refused && code != 0:
		t.Errorf("exit code %d, want 0; it said %q", code, said)
	case code != 0 && strings.Count(said, "\n") > 2:
		t.Errorf("it said more than a fact and a hint:\n%s", said)
	}
	if after := outside(t, h); after != before {
		t.Errorf("outside of the data root:\n%s\nwas\n%s", after, before)
	}
	// What was unpacked is proven by unpacking it again: it comes out the same.
	if text, err := h.cmd("nook", "system", "check").CombinedOutput(); err != nil {
		t.Errorf("system check: %v: %s", err, text)
	}
}

// answer runs a command and returns its standard error and exit code.
func (h *host) answer(t *testing.T, name string, args ...string) (said string, code int) {
	t.Helper()
	cmd := h.cmd(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return stderr.String(), cmd.ProcessState.ExitCode()
}

// outside lists everything of the test's directory but the data and runtime
// directories, with what is in it.
func outside(t *testing.T, h *host) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(h.dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p == h.root || p == filepath.Join(h.dir, "run"):
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b.WriteString(p + " " + info.Mode().String())
		if info.Mode().IsRegular() && info.Size() < 1000 {
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b.WriteString(" " + string(text))
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
