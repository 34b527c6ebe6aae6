package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree lists all that is below a directory with its kind and mode.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, info.Mode().String()+" "+path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestHostileImageTouchesNothingOutside: an image's own symlinks where nook
// makes files and mounts lead nowhere out of the root. Whether such an image
// starts is its own affair.
func TestHostileImageTouchesNothingOutside(t *testing.T) {
	// %S is the sentinel's path on the host without its first slash.
	targets := map[string]string{
		"absolute":          "/%S",
		"up":                "../../../../../../../../%S",
		"up once":           "../%S",
		"absolute, up":      "/../%S",
		"absolute, up, up":  "/../../%S",
		"to the root":       "/",
		"up of the root":    "..",
		"through itself":    "bin/../../%S",
		"through proc":      "/proc/self/root/../%S",
		"through proc, cwd": "/proc/1/cwd/../%S",
		"through the old":   "/proc/self/fd/3/%S",
	}
	for _, place := range []string{"proc", "sys", "dev", "etc", "data", "srv", "work", "etc/hosts", "a/b", "dir"} {
		for name, target := range targets {
			t.Run(strings.ReplaceAll(place, "/", "-")+" is a link "+name, func(t *testing.T) {
				b := newBox(t)
				b.write("sentinel/kept", "kept")
				b.mkdir("sentinel/shm", "sentinel/pts", "sentinel/self", "source")
				b.write("file", "file")
				sentinel := filepath.Join(b.dir, "sentinel")
				link := filepath.Join(b.lower, place)
				if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(strings.ReplaceAll(target, "%S", sentinel[1:]), link); err != nil {
					t.Fatal(err)
				}
				b.root.Etc = map[string]string{"hosts": "h", "hostname": "n", "resolv.conf": "r"}
				b.root.Tmpfs = []Tmpfs{{Target: "/srv/tmp/x"}, {Target: "/a/b/tmp"}}
				b.root.Binds = []Bind{
					{Source: filepath.Join(b.dir, "source"), Target: "/data/made", Dir: true},
					{Source: filepath.Join(b.dir, "file"), Target: "/data/by/a/bind", ReadOnly: true},
					{Source: filepath.Join(b.dir, "file"), Target: "/a/b/c"},
				}
				b.root.WorkingDir = "/dir/for/work"
				top := names(t, "/")
				b.leavesAlone(sentinel)
				if after := names(t, "/"); !slices.Equal(after, top) {
					t.Errorf("the host's /: %v, want %v", after, top)
				}
			})
		}
	}
}

// leavesAlone enters the root and holds a directory of the host against what
// it was.
func (b *box) leavesAlone(sentinel string) {
	b.t.Helper()
	before := tree(b.t, sentinel)
	out, err := b.run("ls /")
	b.t.Logf("%v %s", err, out)
	if after := tree(b.t, sentinel); !slices.Equal(after, before) {
		b.t.Errorf("outside of the root:\n%s\nwant\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

// TestMagicLinksLeadNowhere: while the root is set up directories of the host
// are open, and an image may guess their numbers (CVE-2024-21626).
func TestMagicLinksLeadNowhere(t *testing.T) {
	for _, proc := range []string{"/proc", "/hostproc"} {
		for _, place := range []string{"etc", "data", "srv", "dir"} {
			for _, plain := range []bool{false, true} {
				if plain && proc == "/hostproc" {
					// One who gives a container the host's /proc, on a host
					// without openat2, has to trust its image.
					continue
				}
				name := fmt.Sprintf("%s to %s, without openat2 %v", place, proc[1:], plain)
				t.Run(name, func(t *testing.T) {
					b := newBox(t)
					b.root.noOpenat2 = plain
					b.mkdir("sentinel", "source")
					b.write("file", "file")
					guess := fmt.Sprintf("%s/self/fd/%d/../sentinel", proc, b.root.Lowers[0].FD)
					if err := os.Symlink(guess, filepath.Join(b.lower, place)); err != nil {
						t.Fatal(err)
					}
					b.root.Etc = map[string]string{"hosts": "h"}
					b.root.Tmpfs = []Tmpfs{{Target: "/srv/tmp/x"}}
					b.root.Binds = []Bind{
						{Source: "/proc", Target: "/hostproc", Dir: true, ReadOnly: true},
						{Source: filepath.Join(b.dir, "source"), Target: "/data/made/here", Dir: true},
						{Source: filepath.Join(b.dir, "file"), Target: "/data/file"},
					}
					b.root.WorkingDir = "/dir/for/work"
					b.leavesAlone(filepath.Join(b.dir, "sentinel"))
				})
			}
		}
	}
}

// TestWorkingDirIsInside: not even the one who chose the directory itself.
func TestWorkingDirIsInside(t *testing.T) {
	for _, plain := range []bool{false, true} {
		b := newBox(t)
		b.root.noOpenat2 = plain
		for _, dir := range []string{
			fmt.Sprintf("/proc/self/fd/%d", b.root.Lowers[0].FD),
			fmt.Sprintf("/proc/thread-self/fd/%d", b.root.Lowers[0].FD),
			fmt.Sprintf("/proc/1/fd/%d", b.root.Lowers[0].FD),
			fmt.Sprintf("/proc/self/fd/%d/..", b.root.Lowers[0].FD),
		} {
			b.root.WorkingDir = dir
			out, err := b.run("ls -a . ..")
			if err == nil && strings.Contains(out, "lower") || strings.Contains(out, "busybox") {
				t.Errorf("%s, without openat2 %v: the host's directory:\n%s", dir, plain, out)
			}
			if !plain && !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s: %v, want ELOOP", dir, err)
			}
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestHostIsGoneAfterLeave: no path and no mount leads back.
func TestHostIsGoneAfterLeave(t *testing.T) {
	b := newBox(t)
	b.write("sentinel", "host")
	sentinel := filepath.Join(b.dir, "sentinel")
	out := b.mustRun(`for f in ` + sentinel + ` /..` + sentinel + ` ../..` + sentinel + ` /proc/1/root/..` + sentinel + ` /proc/1/cwd/../..` + sentinel + `
		do test -e $f && echo "host: $f"; done
		readlink /proc/self/cwd; readlink /proc/self/root
		while read id parent dev root target rest; do echo mount $target; done </proc/self/mountinfo
		ls /proc/self/fd | wc -l`)
	if strings.Contains(out, "host:") {
		t.Errorf("the host is in reach:\n%s", out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if lines[0] != "/" || lines[1] != "/" {
		t.Errorf("cwd and root are %q, want /", lines[:2])
	}
	mounts := 0
	for _, l := range lines {
		target, ok := strings.CutPrefix(l, "mount ")
		if !ok {
			continue
		}
		if target == "/" {
			mounts++
		} else if !strings.HasPrefix(target, "/proc") && !strings.HasPrefix(target, "/sys") && !strings.HasPrefix(target, "/dev") {
			t.Errorf("a mount that isn't ours: %s", target)
		}
	}
	if mounts != 1 {
		t.Errorf("got %d mounts on /, want 1\n%s", mounts, out)
	}
}

// TestDescriptorsOfSetupDoNotStay: what the steps open is closed, so that it
// leads nobody back to the host.
func TestDescriptorsOfSetupDoNotStay(t *testing.T) {
	b := newBox(t)
	b.root.Binds = []Bind{{Source: b.lower, Target: "/data", Dir: true, ReadOnly: true}}
	b.root.Etc = map[string]string{"hosts": "x"}
	// The layers' descriptors are close-on-exec. What is inherited from go
	// test is not ours.
	inherited := map[string]bool{}
	for _, fd := range names(t, "/proc/self/fd") {
		inherited[fd] = true
	}
	out := b.mustRun("for f in /proc/$$/fd/*; do echo ${f##*/} $(readlink $f); done")
	for line := range strings.Lines(out) {
		fd, target, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !inherited[fd] && fd != "10" { // the shell's own
			t.Errorf("descriptor %s is open: %s", fd, target)
		}
	}
}
