package layers

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
)

// image is what the containers of these tests begin with.
func image(t testing.TB, ids IDs) []string {
	dirs, _ := stack(t, ids, []*tar.Header{
		dirEntry("etc", 0o755), fileEntry("etc/passwd"), ownedBy(fileEntry("etc/shadow"), 0, 42),
		dirEntry("gone", 0o755), fileEntry("gone/file"), fileEntry("removed"), fileEntry("kept"),
		dirEntry("again", 0o755), fileEntry("again/old"), fileEntry("again/both"),
		dirEntry("dir-to-file", 0o755), fileEntry("dir-to-file/x"), fileEntry("file-to-dir"),
		dirEntry("touched", 0o755), fileEntry("touched/x"), dirEntry("chmodded", 0o755),
		symlinkEntry("link", "kept"), ownedBy(dirEntry("data", 0o700), 7, 7), ownedBy(fileEntry("data/db"), 7, 7),
	}, []*tar.Header{
		dirEntry("etc", 0o755), fileEntry("etc/second"), fileEntry("etc/.wh.passwd"), fileEntry("etc/group"),
	})
	return dirs
}

// ids are those of this stage.
func stageIDs() IDs { return IDs(os.Getenv(stageVariable)) }

// script is what a container does.
const script = `set -e
echo new >etc/new; echo more >>etc/shadow; rm -r gone removed
rm -r again; mkdir again; echo both >again/both; echo new >again/new
rm -r dir-to-file; echo file >dir-to-file; rm file-to-dir; mkdir file-to-dir; echo x >file-to-dir/x
echo x >touched/tmp; rm touched/tmp; chmod 700 chmodded; ln -sfn etc link
mkdir -p added/deep; echo x >added/deep/x; ln added/deep/x added/y; chmod 4755 added/y; mkfifo added/fifo
echo w >>data/db; touch -d @1500000000 added/deep/x
dd if=/dev/zero of=added/holes bs=1 count=0 seek=1M 2>/dev/null
`

// container gives a view of an image with the changes of script, by an overlay
// or, with full, in a copy.
func container(t testing.TB, full bool) (View, string) {
	t.Helper()
	v := View{Lowers: image(t, stageIDs()), IDs: stageIDs(), Full: full}
	var root string
	if full {
		root = filepath.Join(t.TempDir(), "rootfs")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Flatten(t.Context(), root, v.Lowers); err != nil {
			t.Fatal(err)
		}
		v.Upper = root
	} else {
		root = mountOverlay(t, v.Lowers)
		v.Upper = filepath.Join(filepath.Dir(root), "upper")
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return v, root
}

func eachKind(t *testing.T, test func(t *testing.T, full bool)) {
	inStage(t)
	for name, full := range map[string]bool{"overlay": false, "copy": true} {
		t.Run(name, func(t *testing.T) {
			if !full {
				testenv.Need(t, "overlay", overlayHere)
			}
			test(t, full)
		})
	}
}

func TestChangesAreThoseOfTheContainer(t *testing.T) {
	want := strings.Fields(`A/added A/added/deep A/added/deep/x A/added/fifo A/added/holes A/added/y
		C/again C/again/both A/again/new D/again/old C/chmodded C/data C/data/db C/dir-to-file
		C/etc A/etc/new C/etc/shadow C/file-to-dir A/file-to-dir/x D/gone C/link D/removed`)
	eachKind(t, func(t *testing.T, full bool) {
		v, _ := container(t, full)
		list, err := v.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list {
			got = append(got, c.Kind.String()+c.Path)
		}
		slices.Sort(got)
		compareLines(t, got, want)
	})
}

// TestPackedLayerMakesTheSameFiles unpacks what was packed on top of the same
// layers, and compares what a container of either sees.
func TestPackedLayerMakesTheSameFiles(t *testing.T) {
	eachKind(t, func(t *testing.T, full bool) {
		v, root := container(t, full)
		var layer, again bytes.Buffer
		for _, out := range []*bytes.Buffer{&layer, &again} {
			if _, err := v.Pack(t.Context(), out); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(layer.Bytes(), again.Bytes()) {
			t.Error("packing twice gives different bytes")
		}
		dir := filepath.Join(t.TempDir(), "fs")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := Extract(t.Context(), bytes.NewReader(layer.Bytes()), dir, v.IDs)
		if err == nil {
			err = l.Finish(t.Context(), v.Lowers)
		}
		if err != nil {
			t.Fatal(err)
		}
		if l.Pending() {
			t.Error("the layer isn't complete in itself")
		}
		flat := filepath.Join(t.TempDir(), "flat")
		if err := os.Mkdir(flat, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Flatten(t.Context(), flat, append([]string{dir}, v.Lowers...)); err != nil {
			t.Fatal(err)
		}
		compareLines(t, show(t, flat), show(t, root))
		compareLines(t, owned(t, flat), owned(t, root))
	})
}

// owned tells owners and times of files.
func owned(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		line := fmt.Sprintf("%s %d:%d", strings.TrimPrefix(path, dir), st.Uid, st.Gid)
		if e.Type().IsRegular() {
			line += fmt.Sprintf(" %d", st.Mtim.Sec)
		}
		lines = append(lines, line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// headers reads a tar stream, an entry a line.
func headers(t *testing.T, r io.Reader) map[string]*tar.Header {
	t.Helper()
	out := map[string]*tar.Header{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = h
	}
}

// TestPackKeepsTheOwnersOfTheImage holds in Single mode too, where on disk all
// files are 0:0.
func TestPackKeepsTheOwnersOfTheImage(t *testing.T) {
	eachKind(t, func(t *testing.T, full bool) {
		v, _ := container(t, full)
		var layer, all bytes.Buffer
		_, err := v.Pack(t.Context(), &layer)
		if err := errors.Join(err, v.Archive(t.Context(), &all)); err != nil {
			t.Fatal(err)
		}
		for what, got := range map[string]map[string]*tar.Header{"layer": headers(t, &layer), "archive": headers(t, &all)} {
			for name, want := range map[string]Owner{
				"etc/shadow": {GID: 42}, "data/db": {UID: 7, GID: 7}, "data/": {UID: 7, GID: 7}, "etc/new": {}, "again/both": {},
			} {
				h := got[name]
				if h == nil {
					t.Errorf("%s: no entry %s", what, name)
				} else if h.Uid != int(want.UID) || h.Gid != int(want.GID) {
					t.Errorf("%s: %s is of %d:%d, want %d:%d", what, name, h.Uid, h.Gid, want.UID, want.GID)
				}
			}
		}
	})
}

func TestArchiveHasAllFilesAndNoWhiteouts(t *testing.T) {
	eachKind(t, func(t *testing.T, full bool) {
		v, root := container(t, full)
		var all bytes.Buffer
		if err := v.Archive(t.Context(), &all); err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for name := range headers(t, &all) {
			got = append(got, filepath.Clean("/"+name))
		}
		for _, line := range owned(t, root) {
			name, _, _ := strings.Cut(line, " ")
			want = append(want, filepath.Clean("/"+name))
		}
		slices.Sort(got)
		slices.Sort(want)
		compareLines(t, got, want)
	})
}

func TestWhiteoutByAttribute(t *testing.T) {
	inStage(t)
	v := View{Upper: t.TempDir(), Lowers: image(t, stageIDs()), IDs: stageIDs()}
	file := filepath.Join(v.Upper, "removed")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "user.overlay.whiteout", []byte("y"), 0); err != nil {
		testenv.Need(t, "user xattrs", func() error { return err })
	}
	list, err := v.Changes(t.Context())
	if want := []Change{{Deleted, "/removed"}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("got %v, %v, want %v", list, err, want)
	}
}

func TestSkippedPathsAreNoChanges(t *testing.T) {
	eachKind(t, func(t *testing.T, full bool) {
		v, _ := container(t, full)
		v.Skip = func(name string) bool { return name != "etc" && name != "etc/new" }
		list, err := v.Changes(t.Context())
		if want := []Change{{Modified, "/etc"}, {Added, "/etc/new"}}; err != nil || !slices.Equal(list, want) {
			t.Errorf("got %v, %v, want %v", list, err, want)
		}
		v.Skip = func(name string) bool { return name != "etc" }
		if list, err = v.Changes(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("got %v, %v, want no changes", list, err)
		}
	})
}

// A name that means something else in a layer is in none, nor what is below it:
// what Pack writes is always something to extract.
func TestNoLayerHasMarkersAsFiles(t *testing.T) {
	inStage(t)
	up := t.TempDir()
	for _, name := range []string{"d/.wh.x/below", ".wh..wh..opq/f", "d/kept"} {
		if err := os.MkdirAll(filepath.Join(up, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var notes []string
	v := View{Upper: up, IDs: stageIDs(), Note: func(text string) { notes = append(notes, text) }}
	var out bytes.Buffer
	packed, err := v.Pack(t.Context(), &out)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".wh..wh..opq is left out: in a layer its name means something else",
		"d/.wh.x is left out: in a layer its name means something else",
	}
	if !slices.Equal(notes, want) || !packed.Lacks {
		t.Errorf("%v, told %q", packed, notes)
	}
	to := t.TempDir()
	l, err := Extract(t.Context(), &out, to, stageIDs())
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Lstat(filepath.Join(to, "d/kept")); err != nil {
		t.Error(err)
	}

	// The same by COPY and ADD, as another program wrote it.
	made := t.TempDir()
	if err := os.Mkdir(filepath.Join(made, "fs"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := Make(made, nil, stageIDs())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	notes = nil
	m.Note = v.Note
	c, err := m.Copier(t.Context(), Copying{From: []string{up}, Host: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.Contents(".", m.Root()), c.Wait()); err != nil {
		t.Fatal(err)
	}
	foreign := layerOf(t, fileEntry("a"), fileEntry(".wh.a"), fileEntry("d/.wh.x/below"))
	if err := m.Unpack(t.Context(), bytes.NewReader(foreign), "t", Look{Mode: 0o755}, nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(notes)
	if len(notes) != 4 || notes[1] != want[1] || !strings.HasPrefix(notes[2], "t/.wh.a is left out") || !strings.HasPrefix(notes[3], "t/d/.wh.x/below is left out") {
		t.Errorf("told %q", notes)
	}
	if _, err := m.MkdirAll("n/.wh.d", Look{Mode: 0o755}); !errors.Is(err, errMarker) {
		t.Errorf("a directory of such a name: %v", err)
	}
	out.Reset()
	v = View{Upper: filepath.Join(made, "fs"), IDs: stageIDs()}
	if packed, err := v.Pack(t.Context(), &out); err != nil || packed.Lacks {
		t.Errorf("%v, %v", packed, err)
	}
}

// What Extract has no room for is not packed.
func TestPackRefusesEndlessPaths(t *testing.T) {
	inStage(t)
	up := t.TempDir()
	root, err := os.OpenRoot(up)
	if err != nil {
		t.Fatal(err)
	}
	part := strings.Repeat("d", 200)
	for range unix.PathMax/len(part) + 1 {
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
	_ = root.Close()
	_, err = View{Upper: up, IDs: stageIDs()}.Pack(t.Context(), io.Discard)
	if !errors.Is(err, unix.ENAMETOOLONG) || !strings.Contains(err.Error(), "its name has 4220 bytes, and in a layer there is room for 4095") {
		t.Errorf("got %v", err)
	}
}
