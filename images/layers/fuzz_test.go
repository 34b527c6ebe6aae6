package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzExtract unpacks any stream on top of a layer that has a bit of everything.
// Whatever it does, nothing beside its directory may change, the mark of
// overlayfs may not be forged, and all can be removed.
func FuzzExtract(f *testing.F) {
	for _, entries := range [][]*tar.Header{
		{dirEntry("./", 0o755), dirEntry("d", 0o700), fileEntry("d/f"), linkEntry("d/h", "d/f")},
		{fileEntry("d/.wh.x"), fileEntry("d/.wh..wh..opq"), fileEntry("d/f")},
		{symlinkEntry("s", "../../../../SENTINEL"), fileEntry("s/keep")},
		{symlinkEntry("s", "/"), symlinkEntry("s/../t", ".."), fileEntry("t/above/x")},
		{fileEntry("lib/x"), linkEntry("l", "etc/passwd"), fileEntry("../x")},
		{dirEntry("d", 0o755), symlinkEntry("d", ".."), fileEntry("d/x"), deviceEntry("null", 0, 0)},
		{withXattr(dirEntry("d", 0o4755), "user.overlay.opaque", "y"), withXattr(fileEntry("f"), "security.capability", "x")},
	} {
		f.Add(layerOf(f, entries...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inStage(t)
		base := t.TempDir()
		fs := filepath.Join(base, "above", "fs")
		if err := os.MkdirAll(fs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, "SENTINEL"), []byte("kept"), 0o640); err != nil {
			t.Fatal(err)
		}
		dirs, _ := stack(t, Single, []*tar.Header{
			dirEntry("usr", 0o711), symlinkEntry("lib", "usr"), dirEntry("etc", 0o755), fileEntry("etc/passwd"), symlinkEntry("d", "lib"),
		})
		l, err := Extract(context.Background(), bytes.NewReader(data), fs, Single)
		if err == nil {
			err = l.Finish(context.Background(), dirs)
		}
		if err == nil {
			lookForForgedMarks(t, l, fs)
			comesOutTheSame(t, data, fs, dirs)
			if err := Flatten(context.Background(), t.TempDir(), append([]string{fs}, dirs...)); err != nil {
				t.Logf("flatten: %v", err)
			}
		} else if len(err.Error()) > 2000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		if err := os.RemoveAll(fs); err != nil {
			t.Fatal(err)
		}
		compareLines(t, show(t, base), []string{"above/ 0755", `SENTINEL 0640 "kept"`})
		compareLines(t, show(t, dirs[0]), []string{"usr/ 0711", "lib -> usr", "etc/ 0755", `etc/passwd 0644 "etc/passwd"`, "d -> lib"})
	})
}

// comesOutTheSame unpacks the stream once more and compares: Prove lives by that.
func comesOutTheSame(t *testing.T, data []byte, fs string, below []string) {
	t.Helper()
	again := t.TempDir()
	l, err := Extract(context.Background(), bytes.NewReader(data), again, Single)
	if err == nil {
		err = l.Finish(context.Background(), below)
	}
	if err != nil {
		t.Fatalf("the second time: %v", err)
	}
	c := comparing{ctx: context.Background(), bufs: [2][]byte{make([]byte, fileBuffer), make([]byte, fileBuffer)}}
	if fact, err := c.roots(fs, again); err != nil || fact != "" {
		t.Errorf("the second time it comes out otherwise: %s, %v", fact, err)
	}
}

// lookForForgedMarks compares the marks on disk with what the layer means.
func lookForForgedMarks(t *testing.T, l *Layer, fs string) {
	t.Helper()
	var look func(d *dir)
	look = func(d *dir) {
		marked := getXattr(filepath.Join(fs, d.path()), opaqueXattr) != ""
		if d.parent != nil && marked != d.opaque {
			t.Errorf("%s: marked opaque %v, want %v", d.path(), marked, d.opaque)
		}
		for _, child := range d.dirs {
			look(child)
		}
		entries, err := os.ReadDir(filepath.Join(fs, d.path()))
		if errors.Is(err, unix.ENAMETOOLONG) {
			return // deeper than a path can say
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type()&os.ModeDevice != 0 && !d.gone[e.Name()] {
				t.Errorf("a device %s that no whiteout made", e.Name())
			}
			if strings.HasPrefix(e.Name(), whiteoutPrefix) {
				t.Errorf("a file %s", e.Name())
			}
		}
	}
	look(l.tree.root)
}
