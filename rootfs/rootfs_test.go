package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// TestOptionsFitOnePage: mount(2) takes a page of options, and 500 layers are
// what the kernel takes of them (fs/overlayfs/ovl_entry.h, OVL_MAX_STACK).
func TestOptionsFitOnePage(t *testing.T) {
	for _, n := range []int{1, 3, 500} {
		r := &Root{Kind: Overlay, Volatile: true, Upper: Dir{FD: 997}, Work: Dir{FD: 998}}
		for i := range n {
			r.Lowers = append(r.Lowers, Dir{Path: "/a/long/path/with,a:colon", FD: 100 + i})
		}
		got := r.options()
		if len(got) >= 4096 {
			t.Errorf("%d layers: %d bytes, want less than a page", n, len(got))
		}
		if want := "lowerdir=100"; !strings.Contains(got, want) {
			t.Errorf("%d layers: %.80s: no %s", n, got, want)
		}
		if got := strings.Count(got, ":"); got != n-1 {
			t.Errorf("%d layers: %d colons", n, got)
		}
		if strings.Contains(got, "/") {
			t.Errorf("a path in the options: %.200s", got)
		}
	}
}

func TestOptionsSayVolatileWhereNothingIsKept(t *testing.T) {
	for _, tc := range []struct {
		kind     Kind
		volatile bool
		want     bool
	}{{Overlay, false, false}, {Overlay, true, true}, {OverlayTmpfs, false, true}} {
		r := &Root{Kind: tc.kind, Volatile: tc.volatile}
		if got := strings.Contains(r.options(), ",volatile"); got != tc.want {
			t.Errorf("%s, Volatile %v: volatile %v, want %v", tc.kind, tc.volatile, got, tc.want)
		}
	}
}

// TestFiveHundredLayersMount: each layer's file is there, and the topmost one
// hides those below.
func TestFiveHundredLayersMount(t *testing.T) {
	b := newBox(t)
	base := b.root.Lowers
	b.root.Lowers = nil
	const layers = 499 // and the one with the shell
	for i := range layers {
		name := fmt.Sprintf("layers/%d", i)
		b.write(fmt.Sprintf("%s/in/file%d", name, i), "x")
		b.write(name+"/top", fmt.Sprint(i))
		b.root.Lowers = append(b.root.Lowers, b.place(name))
	}
	b.root.Lowers = append(b.root.Lowers, base...)
	got := b.mustRun("ls /in | wc -l; cat /top")
	if want := "499\n0"; strings.TrimSpace(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWritesGoToTheUpperDirectory(t *testing.T) {
	for _, kind := range []Kind{Overlay, OverlayTmpfs, Copy} {
		t.Run(string(kind), func(t *testing.T) {
			b := newBox(t)
			b.root.Kind = kind
			b.root.UpperMode = 0o2751
			if err := unix.Chmod(filepath.Join(b.dir, "upper"), 0o2751); err != nil {
				t.Fatal(err)
			}
			written := "upper"
			if kind == Copy {
				b.root.Dir, written = b.lower, "lower"
			}
			got := b.mustRun("echo changed >/made; stat -c %a /; cat /made")
			if want := "2751\nchanged\n"; kind != Copy && got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			_, err := os.Stat(filepath.Join(b.dir, written, "made"))
			if kind == OverlayTmpfs != errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s/made: %v", written, err)
			}
			if _, err := os.Stat(filepath.Join(b.lower, "made")); kind != Copy && err == nil {
				t.Error("the layer was written to")
			}
		})
	}
}

func TestReadOnlyRootStillHasItsMountPoints(t *testing.T) {
	b := newBox(t)
	b.root.ReadOnly = true
	b.root.Tmpfs = []Tmpfs{{Target: "/made/for/tmpfs", Data: "mode=1777"}}
	b.root.WorkingDir = "/made/for/work"
	got := b.mustRun("touch /x 2>/dev/null || echo refused; touch /made/for/tmpfs/x /dev/shm/x && echo written; readlink /proc/self/cwd")
	if want := "refused\nwritten\n/made/for/work\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestReadOnlyBindIsRecursive: what is mounted below a source is read-only too.
func TestReadOnlyBindIsRecursive(t *testing.T) {
	for _, tc := range []struct {
		readOnly, noRecurse bool
		want                string
	}{
		{false, false, "top\nbelow\nmounted\n"},
		{true, false, "mounted\n"},
		{false, true, "top\nbelow\n"}, // what lies under the mount below
		{true, true, ""},
	} {
		b := newBox(t)
		b.mkdir("source/sub")
		source := filepath.Join(b.dir, "source")
		b.before = func(p *raw.Program) {
			p.Call("mount below the source", unix.SYS_MOUNT, "tmpfs", source+"/sub", "tmpfs", 0, 0)
			p.Call("mark it", unix.SYS_MKDIRAT, unix.AT_FDCWD, source+"/sub/mounted", 0o755)
		}
		b.root.Binds = []Bind{{Source: source, Target: "/a/b", Dir: true, ReadOnly: tc.readOnly, NoRecurse: tc.noRecurse}}
		got := b.mustRun("cd /a/b; touch top 2>/dev/null && echo top; touch sub/x 2>/dev/null && echo below; ls sub | grep mounted; true")
		if got != tc.want {
			t.Errorf("read-only %v, without recursion %v: got %q, want %q", tc.readOnly, tc.noRecurse, got, tc.want)
		}
	}
}

func TestBindOfAFileMakesItsPlace(t *testing.T) {
	b := newBox(t)
	b.write("file", "from the host")
	source := filepath.Join(b.dir, "file")
	b.root.Binds = []Bind{
		{Source: source, Target: "/new/dir/file"},
		{Source: source, Target: "/etc/hosts", ReadOnly: true}, // over one of Etc
	}
	b.root.Etc = map[string]string{"hosts": "ours"}
	got := b.mustRun("cat /new/dir/file /etc/hosts; (echo x >/etc/hosts) 2>/dev/null || echo ' refused'")
	if want := "from the hostfrom the host refused\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEtcGivesWayToNothing(t *testing.T) {
	for name, prepare := range map[string]func(b *box){
		"missing":       func(*box) {},
		"a file":        func(b *box) { b.write("lower/etc/resolv.conf", "the image's") },
		"a link":        func(b *box) { b.write("lower/run/r", "x"); b.link("../run/r", "lower/etc/resolv.conf") },
		"a broken link": func(b *box) { b.link("../run/systemd/resolve/stub-resolv.conf", "lower/etc/resolv.conf") },
		"a loop":        func(b *box) { b.link("resolv.conf", "lower/etc/resolv.conf") },
		"etc is a link": func(b *box) { b.mkdir("lower/usr/etc"); b.link("usr/etc", "lower/etc") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			prepare(b)
			b.root.Etc = map[string]string{"resolv.conf": "ours", "hosts": "ours too"}
			if got, want := b.mustRun("cat /etc/resolv.conf; ls -A /dev | grep '^\\.'"), "ours"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func (b *box) link(target, name string) {
	b.t.Helper()
	b.mkdir(filepath.Dir(name))
	if err := os.Symlink(target, filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

// TestKernelTreesWantDirectories: with a link in the place of one of them,
// what is masked would be masked elsewhere.
func TestKernelTreesWantDirectories(t *testing.T) {
	for _, dir := range []string{"proc", "sys", "dev"} {
		for name, prepare := range map[string]func(b *box){
			"link": func(b *box) { b.mkdir("lower/other"); b.link("other", "lower/"+dir) },
			"file": func(b *box) { b.write("lower/"+dir, "x") },
		} {
			b := newBox(t)
			prepare(b)
			if _, err := b.run("true"); !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("/%s is a %s: %v, want ENOTDIR", dir, name, err)
			}
		}
	}
}

// TestProcIsTheHostsWhereMountingIsRefused: parts of the only /proc are
// covered, as in a container.
func TestProcIsTheHostsWhereMountingIsRefused(t *testing.T) {
	for _, masked := range []bool{false, true} {
		b := newBox(t)
		b.masked = masked
		got := b.mustRun(`grep ' /proc ' /proc/self/mountinfo | head -1; test -e /proc/self/status && echo there
			(echo x >/proc/sys/kernel/domainname) 2>/dev/null || echo refused; ls /proc/irq | wc -l`)
		if !strings.Contains(got, "there\nrefused\n") {
			t.Errorf("masked %v: %q", masked, got)
		}
		if readOnly := strings.Contains(strings.SplitN(got, "\n", 2)[0], " ro,"); readOnly != masked {
			t.Errorf("masked %v: /proc is read-only %v\n%s", masked, readOnly, got)
		}
		if covered := strings.HasSuffix(got, "\n0\n"); covered != masked {
			t.Errorf("masked %v: /proc/irq is covered: %v\n%s", masked, covered, got)
		}
	}
}

func TestMaskHidesAndProtects(t *testing.T) {
	b := newBox(t)
	got := b.mustRun(`
		for f in /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug
		do test ! -e $f || test -c $f || echo open $f; done
		for d in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap
		do test -z "$(ls $d 2>/dev/null)" || echo open $d; done
		for d in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger
		do test ! -e $d || grep -q " $d [^ ]*ro" /proc/self/mountinfo || echo writable $d; done
		grep -q ' /sys ro' /proc/self/mountinfo || echo writable /sys`)
	if got != "" {
		t.Error(got)
	}
}

func TestDevHoldsTheUsualAndNoMore(t *testing.T) {
	b := newBox(t)
	got := strings.Fields(b.mustRun("cd /dev; ls"))
	want := "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v\nwant %s", got, want)
	}
}

// TestDevicesAreTheHosts: what root of a container that root started changes
// about them would be changed on the host.
func TestDevicesAreTheHosts(t *testing.T) {
	for _, older := range []bool{false, true} {
		b := newBox(t)
		b.root.noNewMounts = older
		got := b.mustRun(`grep devtmpfs /proc/self/mounts | grep -v 'devtmpfs ro,'; echo x >/dev/null; head -c 3 /dev/zero | wc -c; touch /dev/null 2>&1`)
		if want := "3\ntouch: /dev/null: Read-only file system\n"; got != want {
			t.Errorf("by mount(2) %v: got %q, want %q", older, got, want)
		}
	}
}

func TestSkeletonIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := Skeleton(dir, []string{"hosts"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"proc", "sys", "dev", "etc", "etc/hosts"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if err := Skeleton("/proc/nowhere", nil); err == nil {
		t.Error("a skeleton in /proc: no error")
	}
}
