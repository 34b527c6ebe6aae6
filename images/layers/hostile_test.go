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

	"nook/internal/hint"
	"nook/internal/testenv"
)

func TestExtractRefuses(t *testing.T) {
	inStage(t)
	for _, tc := range []struct {
		name    string
		entries []*tar.Header
		want    []string
	}{
		{"a path to the outside", []*tar.Header{fileEntry("../evil")}, []string{"extract ../evil", "outside"}},
		{"a path to the outside after a slash", []*tar.Header{fileEntry("/../evil")}, []string{"/../evil", "outside"}},
		{"a path to the outside after a detour", []*tar.Header{fileEntry("a/../../evil")}, []string{"a/../../evil", "outside"}},
		{"the parent", []*tar.Header{dirEntry("..", 0o755)}, []string{"extract ..", "outside"}},
		{"a symlink as the root", []*tar.Header{symlinkEntry("./", "/etc")}, []string{"root can only be a directory"}},
		{"a hard link to the outside", []*tar.Header{linkEntry("l", "../../etc/passwd")}, []string{"extract l", "outside"}},
		{"a hard link to nothing", []*tar.Header{linkEntry("l", "missing")}, []string{"extract l", "missing", "in no layer"}},
		{"a hard link to an absolute path", []*tar.Header{linkEntry("l", "/etc/passwd")}, []string{"etc/passwd, which is in no layer"}},
		{"a hard link through a symlink to the outside", []*tar.Header{symlinkEntry("s", "/etc"), linkEntry("l", "s/passwd")},
			[]string{"s/passwd, which is in no layer"}},
		{"a hard link to a directory", []*tar.Header{dirEntry("d", 0o755), linkEntry("l", "d")}, []string{"which is a directory"}},
		{"a hard link to the root", []*tar.Header{linkEntry("l", "./")}, []string{"which is no file"}},
		{"a hard link to a whiteout", []*tar.Header{fileEntry(".wh.f"), linkEntry("l", "f")}, []string{"which the layer removes"}},
		{"a hard link to a whiteout's entry", []*tar.Header{fileEntry(".wh.f"), linkEntry("l", ".wh.f")}, []string{"which is no file"}},
		{"a whiteout of nothing", []*tar.Header{fileEntry("d/.wh.")}, []string{"extract d/.wh.", "whiteout of nothing"}},
		{"a whiteout of its directory", []*tar.Header{fileEntry("d/.wh..")}, []string{"whiteout of nothing"}},
		{"a whiteout of the parent", []*tar.Header{fileEntry(".wh...")}, []string{"whiteout of nothing"}},
		{"a path through a whiteout", []*tar.Header{fileEntry("d/.wh.x/y")}, []string{"goes through a whiteout"}},
		{"a component over 255 bytes", []*tar.Header{fileEntry("d/" + strings.Repeat("x", 256))}, []string{"extract d/xxx", "256 bytes"}},
		{"a name of 4096 bytes", []*tar.Header{fileEntry(strings.Repeat("x/", 2047) + "xx")}, []string{"4096 bytes"}},
		{"a path that symlinks make longer than the kernel takes", longThroughSymlinks(), []string{"its directory", unix.ENAMETOOLONG.Error()}},
		{"a symlink circle on the way", []*tar.Header{symlinkEntry("a", "b"), symlinkEntry("b", "a"), fileEntry("a/x")},
			[]string{"extract a/x", unix.ELOOP.Error()}},
		{"a file on the way", []*tar.Header{fileEntry("f"), fileEntry("f/x")}, []string{"extract f/x", unix.ENOTDIR.Error()}},
		{"a fifo on the way", []*tar.Header{{Typeflag: tar.TypeFifo, Name: "p"}, fileEntry("p/x")}, []string{unix.ENOTDIR.Error()}},
		{"a symlink to nothing", []*tar.Header{{Typeflag: tar.TypeSymlink, Name: "s", Linkname: ""}}, []string{"symlink to nothing"}},
		{"a symlink longer than the kernel takes", []*tar.Header{symlinkEntry("s", strings.Repeat("x", 5000))}, []string{"extract s", unix.ENAMETOOLONG.Error()}},
		{"an owner that no kernel has", []*tar.Header{ownedBy(fileEntry("f"), 1<<32-1, 0)}, []string{"extract f", "4294967295:0"}},
		{"an entry of unknown type", []*tar.Header{{Typeflag: 'Z', Name: "z"}}, []string{"extract z", "unknown type 'Z'"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantError(t, extractError(t, layerOf(t, tc.entries...)), tc.want...)
		})
	}
}

// longThroughSymlinks is a layer in which each symlink doubles the depth.
func longThroughSymlinks() []*tar.Header {
	deep := strings.Repeat("d/", 1000)
	return []*tar.Header{
		symlinkEntry("a", deep), fileEntry("a/f"), symlinkEntry("b", deep+deep[:1000]), fileEntry("b/f"),
		symlinkEntry(deep+"c", deep), symlinkEntry(deep+deep+"c", deep), fileEntry(deep + "c/" + deep + "f"),
	}
}

func TestExtractStaysInside(t *testing.T) {
	inStage(t)
	for _, tc := range []struct {
		name    string
		entries []*tar.Header
	}{
		{"an absolute symlink", []*tar.Header{symlinkEntry("s", "OUTSIDE"), fileEntry("s/evil")}},
		{"a relative symlink", []*tar.Header{symlinkEntry("s", "../../../../../../../../../../../OUTSIDE"), fileEntry("s/evil")}},
		{"a chain of symlinks", []*tar.Header{
			symlinkEntry("a", ".."), symlinkEntry("a/b", "../.."), symlinkEntry("c", "a/b/../OUTSIDE"), fileEntry("c/evil"),
		}},
		{"a symlink in a later entry", []*tar.Header{
			dirEntry("d", 0o755), fileEntry("d/x"), symlinkEntry("d", "OUTSIDE"), fileEntry("d/evil"), fileEntry("d/keep"),
		}},
		{"a directory entry of a symlink's name", []*tar.Header{symlinkEntry("s", "OUTSIDE"), dirEntry("s", 0), fileEntry("s/keep")}},
		{"a file of a symlink's name", []*tar.Header{symlinkEntry("keep", "OUTSIDE/keep"), contentEntry("keep", "evil")}},
		{"a hard link to a symlink, then a file of its name", []*tar.Header{
			symlinkEntry("s", "OUTSIDE/keep"), linkEntry("h", "s"), contentEntry("h", "evil"),
		}},
		{"a fifo of a symlink's name", []*tar.Header{symlinkEntry("s", "OUTSIDE/keep"), {Typeflag: tar.TypeFifo, Name: "s", Mode: 0o777}}},
		{"a removed directory that was on the way", []*tar.Header{
			dirEntry("d", 0o755), dirEntry("d/e", 0o755), fileEntry("d/e/f"), symlinkEntry("d/e", "OUTSIDE"), fileEntry("d/e/evil"),
			dirEntry("d/e/", 0o700), fileEntry("d/e/keep"),
		}},
		{"whiteouts through a symlink", []*tar.Header{symlinkEntry("s", "OUTSIDE"), fileEntry("s/.wh.keep"), fileEntry("s/.wh..wh..opq")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			outside := t.TempDir()
			if err := os.WriteFile(outside+"/keep", []byte("kept"), 0o640); err != nil {
				t.Fatal(err)
			}
			before := lstat(t, outside)
			for _, h := range tc.entries {
				h.Linkname = strings.ReplaceAll(h.Linkname, "OUTSIDE", outside)
			}
			dir := t.TempDir()
			l, err := Extract(context.Background(), bytes.NewReader(layerOf(t, tc.entries...)), dir, Single)
			if err == nil {
				err = l.Finish(context.Background(), nil)
			}
			t.Logf("ended with %v", err)
			compareLines(t, show(t, outside), []string{`keep 0640 "kept"`})
			if after := lstat(t, outside); after.Mode != before.Mode || after.Mtim != before.Mtim {
				t.Errorf("the directory outside has changed: %+v, was %+v", after, before)
			}
		})
	}
}

func TestExtractRefusesDamagedStreams(t *testing.T) {
	inStage(t)
	whole := layerOf(t, dirEntry("d", 0o755), contentEntry("d/f", strings.Repeat("x", 5000)), fileEntry("g"))
	nul := bytes.Replace(layerOf(t, fileEntry(strings.Repeat("n", 150))), []byte("path=nnn"), []byte("path=n\x00n"), 1)
	for _, tc := range []struct {
		name   string
		stream []byte
		want   []string
	}{
		{"cut off in a header", whole[:500], []string{"cut off"}},
		{"cut off in a header's padding", whole[:800], []string{"cut off"}},
		{"cut off in a file", whole[:5000], []string{"extract d/f", "cut off"}},
		{"a wrong checksum", append([]byte("x"), whole[1:]...), []string{"not a tar stream"}},
		{"a zero byte in a name", nul, []string{"not a tar stream"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantError(t, extractError(t, tc.stream), tc.want...)
		})
	}
}

// What umoci insert writes: no padding behind the last file, and no end.
func TestExtractTakesAnArchiveThatWasNotClosed(t *testing.T) {
	inStage(t)
	content := strings.Repeat("x", 5000)
	whole := layerOf(t, dirEntry("d", 0o755), contentEntry("d/f", content))
	before, _, _ := bytes.Cut(whole, []byte(content))
	unclosed := whole[:len(before)+len(content)]
	wantError(t, extractError(t, unclosed[:len(unclosed)-1]), "extract d/f", "cut off")
	wantError(t, extractError(t, whole[:len(unclosed)+1]), "cut off")
	l, err := Extract(context.Background(), bytes.NewReader(unclosed), t.TempDir(), Single)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestExtractShowsNamesWithoutControlBytes(t *testing.T) {
	inStage(t)
	err := extractError(t, layerOf(t, fileEntry("../\x1b[2J"+strings.Repeat("é", 300))))
	wantError(t, err, `\x1b[2J`)
	if len(err.Error()) > 250 || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("got %q", err)
	}
}

func TestExtractEndsWithItsContext(t *testing.T) {
	inStage(t)
	ctx, cancel := context.WithCancel(context.Background())
	content := strings.Repeat("x", 1<<20)
	in := &cancelAt{r: bytes.NewReader(layerOf(t, contentEntry("a", content), contentEntry("b", content))), after: 3 << 19, cancel: cancel}
	_, err := Extract(ctx, in, t.TempDir(), Single)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// cancelAt calls cancel when so many bytes were read.
type cancelAt struct {
	r      *bytes.Reader
	after  int
	cancel func()
}

func (c *cancelAt) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.after -= n; c.after <= 0 {
		c.cancel()
	}
	return n, err
}

func TestExtractSaysWhereTheDiskIsFull(t *testing.T) {
	inStage(t)
	dir := smallTmpfs(t)
	stream := layerOf(t, dirEntry("d", 0o755), contentEntry("d/big", strings.Repeat("x", 1<<20)))
	_, err := Extract(context.Background(), bytes.NewReader(stream), dir, Single)
	wantError(t, err, "extract d/big", "no space left")
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(hint.Of(err), dir) {
		t.Errorf("got hint %q, want one that names %s", hint.Of(err), dir)
	}
}

// smallTmpfs is a directory that 256 KiB fill.
func smallTmpfs(t testing.TB) string {
	t.Helper()
	testenv.Need(t, "tmpfs", testenv.Tmpfs)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestExtractRefusesAnOwnerBeyondTheMap(t *testing.T) {
	inStage(t)
	dir := t.TempDir()
	stream := layerOf(t, ownedBy(fileEntry("f"), 3_000_000_000, 0))
	_, err := Extract(context.Background(), bytes.NewReader(stream), dir, Mapped)
	wantError(t, err, "extract f", "chown to 3000000000:0")
	if !strings.Contains(hint.Of(err), "/etc/subuid") {
		t.Errorf("got hint %q", hint.Of(err))
	}
	if _, err := os.Lstat(filepath.Join(dir, "f")); err != nil {
		t.Errorf("got %v: the test meant to reach chown", err)
	}
}
