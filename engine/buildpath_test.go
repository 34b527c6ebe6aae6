package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/build"
)

// deep makes nested directories, with a file and a link in the innermost, and
// gives its path.
func deep(t *testing.T, dir, part string, levels int) string {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		if err := root.Mkdir(part, 0o755); err != nil {
			t.Fatal(err)
		}
		below, err := root.OpenRoot(part)
		if err != nil {
			t.Fatal(err)
		}
		_ = root.Close()
		root = below
	}
	defer root.Close()
	if err := errors.Join(root.WriteFile("file", []byte("x"), 0o644), root.Symlink("file", "link")); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.Repeat(part+"/", levels), "/")
}

// An epoch reaches what no path does.
func TestClampTimesOfADeepTree(t *testing.T) {
	dir := t.TempDir()
	name := deep(t, dir, "d", 3000)
	epoch := time.Unix(1000, 0)
	if err := clampTimes(dir, epoch); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "d", name, name + "/file", name + "/link"} {
		var st unix.Stat_t
		if err := statBelow(dir, name, &st); err != nil || st.Mtim.Sec != 1000 {
			t.Errorf("%.20s…: %d, %v", name, st.Mtim.Sec, err)
		}
	}
}

// A context may be where its files' paths are longer than the kernel takes, and
// they may be so themselves.
func TestContextOfLongPaths(t *testing.T) {
	inModes(t, func(t *testing.T, e *Engine) {
		dir := t.TempDir()
		name := deep(t, dir, strings.Repeat("d", 240), 50)
		w, err := e.newWorker(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		s := &build.Selection{Tree: build.Tree{Dir: dir}, Spec: build.SelectSpec{Sources: []string{"."}}}
		if err := w.selectContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		found := s.Found.(*selected)
		last := found.nodes[len(found.nodes)-1]
		if last.name != name+"/link" || last.link != "file" {
			t.Errorf("found …%s -> %q", last.name[max(0, len(last.name)-20):], last.link)
		}
		if found.changed(dir, nil) {
			t.Error("it is said to have changed")
		}
		if _, err := openBelow(dir, filepath.Join(name, "none"), unix.O_PATH); !errors.Is(err, unix.ENOENT) {
			t.Errorf("what isn't there: %v", err)
		}
	})
}
