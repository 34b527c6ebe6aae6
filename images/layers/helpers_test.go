package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
)

// when is the time of all entries that say nothing else.
var when = time.Unix(1_600_000_000, 123_456_789)

// The entries of test layers.
func dirEntry(name string, mode int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
}

// fileEntry has its own name as content.
func fileEntry(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(name))}
}

// contentEntry has the content given.
func contentEntry(name, content string) *tar.Header {
	h := fileEntry(name)
	h.Size = int64(len(content))
	h.PAXRecords = map[string]string{"NOOK.content": content}
	return h
}

func linkEntry(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}
}

func symlinkEntry(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}
}

func deviceEntry(name string, major, minor int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeChar, Name: name, Mode: 0o666, Devmajor: major, Devminor: minor}
}

func ownedBy(h *tar.Header, uid, gid int) *tar.Header {
	h.Uid, h.Gid = uid, gid
	return h
}

func withXattr(h *tar.Header, name, value string) *tar.Header {
	if h.PAXRecords == nil {
		h.PAXRecords = map[string]string{}
	}
	h.PAXRecords["SCHILY.xattr."+name] = value
	return h
}

func layerOf(t testing.TB, entries ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		c := *h
		c.Format = tar.FormatPAX
		if c.ModTime.IsZero() {
			c.ModTime = when
		}
		content := c.Name
		if own, ok := c.PAXRecords["NOOK.content"]; ok {
			content = own
			c.PAXRecords = maps.Clone(c.PAXRecords)
			delete(c.PAXRecords, "NOOK.content")
		}
		if err := w.WriteHeader(&c); err != nil {
			t.Fatalf("write header of %q: %v", h.Name, err)
		}
		if c.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(content)[:c.Size]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// stack unpacks layers, bottom first, and gives their directories, topmost
// first, and the topmost layer.
func stack(t testing.TB, ids IDs, layers ...[]*tar.Header) ([]string, *Layer) {
	t.Helper()
	var dirs []string
	var top *Layer
	for i, entries := range layers {
		dir := filepath.Join(t.TempDir(), fmt.Sprint("layer", i), "fs")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := Extract(context.Background(), bytes.NewReader(layerOf(t, entries...)), dir, ids)
		if err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		l.belowOwners = ownersBelow(dirs)
		if err := l.Finish(context.Background(), dirs); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
		if err := l.writeOwners(ownersPath(dir)); err != nil {
			t.Fatal(err)
		}
		dirs = append([]string{dir}, dirs...)
		top = l
	}
	return dirs, top
}

// extractError unpacks one layer that should be refused, on top of nothing, and
// looks that nothing is made beside its directory or above.
func extractError(t testing.TB, stream []byte) error {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "above", "fs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Extract(context.Background(), bytes.NewReader(stream), dir, Single)
	if err == nil {
		err = l.Finish(context.Background(), nil)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	compareLines(t, show(t, base), []string{"above/ 0755"})
	return err
}

// mountOverlay shows the directories as a container sees them.
func mountOverlay(t testing.TB, dirs []string) string {
	t.Helper()
	testenv.Need(t, "overlay", overlayHere)
	base := t.TempDir()
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(base, "merged")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,userxattr", strings.Join(dirs, ":"), base, base)
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(merged, unix.MNT_DETACH) })
	return merged
}

// overlayHere tries a mount in this process' own namespace.
func overlayHere() error {
	dir, err := os.MkdirTemp("", "nook-probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, d := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	m := filepath.Join(dir, "m")
	options := fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w,userxattr", dir)
	if err := unix.Mount("overlay", m, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return unix.Unmount(m, 0)
}

// show describes a tree, a line an entry: path, type and mode, and what is in it.
func show(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if name == "." {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := name
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			line += fmt.Sprintf("/ %04o", st.Mode&0o7777)
			if value := getXattr(path, opaqueXattr); value != "" {
				line += " opaque"
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(path)
			line += " -> " + target
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %04o %q", st.Mode&0o7777, content)
		case unix.S_IFCHR:
			line += fmt.Sprintf(" device %d", st.Rdev)
		case unix.S_IFIFO:
			line += fmt.Sprintf(" fifo %04o", st.Mode&0o7777)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func getXattr(path, name string) string {
	buf := make([]byte, 256)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func compareLines(t testing.TB, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func lstat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func digestOf(stream []byte) string {
	sum := sha256.Sum256(stream)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func wantError(t testing.TB, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got error %q, want %q in it", err, text)
		}
	}
}
