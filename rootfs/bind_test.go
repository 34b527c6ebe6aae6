package rootfs

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/internal/testenv"
)

func needDescriptors(t *testing.T) {
	t.Helper()
	testenv.Need(t, "openat2 and open_tree", func() error {
		if !Descriptors() {
			return errors.New("refused")
		}
		return nil
	})
}

// TestSourceThatBecameALinkIsRefused: at its end, and on the way to it.
func TestSourceThatBecameALinkIsRefused(t *testing.T) {
	needDescriptors(t)
	for _, link := range []string{"way", "way/source"} {
		b := newBox(t)
		b.write("secret/source/file", "secret")
		if filepath.Dir(link) != "." {
			b.mkdir(filepath.Dir(link))
		}
		target := filepath.Join(b.dir, "secret")
		if link != "way" {
			target += "/source"
		}
		b.link(target, link)
		b.root.Binds = []Bind{{Source: filepath.Join(b.dir, "way/source"), Target: "/data", Dir: true}}
		out, err := b.run("cat /data/file")
		if !errors.Is(err, unix.ELOOP) || strings.Contains(out, "secret") {
			t.Errorf("%s is a link: %q, %v; want ELOOP", link, out, err)
		}
	}
}

// TestSubpathIsResolvedInItsSource: whatever links lie there.
func TestSubpathIsResolvedInItsSource(t *testing.T) {
	needDescriptors(t)
	b := newBox(t)
	b.write("secret/file", "secret")
	b.write("volume/file", "inside")
	b.write("volume/a/b/file", "below")
	b.link(filepath.Join(b.dir, "secret"), "volume/absolute")
	b.link("../secret", "volume/up")
	b.link("/a/b", "volume/root")
	b.link("/proc/self/fd", "volume/magic")
	for subpath, want := range map[string]string{
		"a/b": "below", "root": "below", "a/../a/b": "below", "..": "inside", "../volume/a/b": "", "a/b/file": "below",
		"absolute": "", "up": "", "../secret": "", "magic": "", "missing": "", "file/x": "",
	} {
		b.root.Binds = []Bind{{Source: filepath.Join(b.dir, "volume"), Subpath: subpath, Target: "/data", Dir: true, ReadOnly: true}}
		got, err := b.run("test -d /data && cat /data/file || cat /data")
		if want == "" && err == nil || want != "" && err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", subpath, got, err, want)
		}
		if err := os.RemoveAll(filepath.Join(b.dir, "upper/data")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestParentsAreMountedFirst: whatever the order they were named in.
func TestParentsAreMountedFirst(t *testing.T) {
	b := newBox(t)
	b.write("deep/file", "deep")
	b.write("top/file", "top")
	b.root.Binds = []Bind{
		{Source: filepath.Join(b.dir, "deep"), Target: "/mem/a/deep", Dir: true},
		{Source: filepath.Join(b.dir, "top"), Target: "/top", Dir: true},
	}
	b.root.Tmpfs = []Tmpfs{{Target: "/top/a/tmp"}, {Target: "/mem"}}
	got := b.mustRun("cat /mem/a/deep/file /top/file; touch /top/a/tmp/x; ls /top")
	if want := "deeptopa\nfile\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if names := names(t, filepath.Join(b.dir, "top/a")); strings.Join(names, " ") != "tmp" {
		t.Errorf("in the source: %v", names)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "top/a/tmp/x")); err == nil {
		t.Error("the tmpfs was mounted below the bind")
	}
}

func TestWritableBelow(t *testing.T) {
	needDescriptors(t)
	b := newBox(t)
	b.mkdir("source/sub")
	source := filepath.Join(b.dir, "source")
	b.before = func(p *raw.Program) {
		p.Call("mount below the source", unix.SYS_MOUNT, "tmpfs", source+"/sub", "tmpfs", 0, 0)
	}
	b.root.Binds = []Bind{{Source: source, Target: "/a", Dir: true, ReadOnly: true, WritableBelow: true}}
	if got := b.mustRun("touch /a/x 2>/dev/null && echo top; touch /a/sub/x && echo below"); got != "below\n" {
		t.Errorf("got %q, want only below", got)
	}
}

// TestSocketCanBeBound: it is a file like others.
func TestSocketCanBeBound(t *testing.T) {
	b := newBox(t)
	path := filepath.Join(b.dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.root.Binds = []Bind{{Source: path, Target: "/run/s"}}
	if got := b.mustRun("stat -c %F /run/s"); got != "socket\n" {
		t.Errorf("got %q", got)
	}
}

// TestBindsByMount runs what has to work where the new calls are refused.
func TestBindsByMount(t *testing.T) {
	b := newBox(t)
	b.root.noNewMounts, b.root.noOpenat2 = true, true
	b.write("source/file", "x")
	b.root.Binds = []Bind{
		{Source: filepath.Join(b.dir, "source"), Target: "/a", Dir: true},
		{Source: filepath.Join(b.dir, "source"), Target: "/b", Dir: true, ReadOnly: true},
	}
	got := b.mustRun("touch /a/made /b/made2 2>/dev/null; ls /b")
	if want := "file\nmade\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
