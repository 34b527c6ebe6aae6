package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// The data root on file systems that don't carry it well.

// onOverlay mounts an overlay and puts the data root on it; with a depth of 2
// its lower layer is an overlay already, and the kernel stacks no third.
func onOverlay(depth int) string {
	setup := "cd $WORK/home; mkdir -p l u w m; mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr x m; export NOOK_ROOT=$PWD/m/root\n"
	if depth == 2 {
		setup += "mkdir -p u2 w2 m2; mount -t overlay -o lowerdir=m,upperdir=u2,workdir=w2,userxattr x m2; export NOOK_ROOT=$PWD/m2/root\n"
	}
	return setup + "nook load -q -i $BUSYBOX\n"
}

// isolated starts two containers, of which the second must not see what the
// first wrote, nor lack what it removed.
const isolated = `
	nook run % busybox sh -c 'echo new >/f; rm /bin/vi; chmod 700 /tmp; mkdir /etc/d; cat /f; test ! -e /bin/vi'
	nook run % busybox sh -c 'ls /f /etc/d /bin/vi 2>/dev/null; ls -ld /tmp /root | cut -c 1-10; grep -c . /etc/passwd'
`

const isolatedSays = "new\n/bin/vi\ndrwx------\ndrwxrwxrwt\n3\n"

func withFlags(script, flags string) string { return strings.ReplaceAll(script, "%", flags) }

// TestNestedDataRootOnOverlay: no upper directory is allowed there.
func TestNestedDataRootOnOverlay(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		on := onOverlay(1)
		info := n.must(t, on+"nook info --format json")
		wantFinding(t, info, "overlay", "overlay-tmpfs for run --rm, else copy", "the data root lies on overlayfs", true)

		out := n.must(t, on+withFlags(isolated, "--rm")+"ls $NOOK_ROOT/containers/names\n"+
			"nook run --rm busybox sh -c 'echo x >/x; grep -c \" / overlay .*fsync=volatile\\| / overlay .*volatile\" /proc/mounts'")
		want(t, "with --rm", out, isolatedSays+"1\n")

		kept := strings.Replace(strings.Replace(isolated, "%", "--name one", 1), "%", "--name two", 1)
		out = n.must(t, on+kept+
			"ls $NOOK_ROOT/containers/names; cat $NOOK_ROOT/containers/names/one/rootfs/f; nook rm one two; ls $NOOK_ROOT/containers/names")
		want(t, "without --rm", out, isolatedSays+"one\ntwo\nnew\none\ntwo\n")
	})
}

// TestNestedOverlayRefusedByDepth: no overlay at all can be mounted over the
// layers, which only the mount itself tells.
func TestNestedOverlayRefusedByDepth(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		on := onOverlay(2)
		wantFinding(t, n.must(t, on+"nook info --format json"), "overlay", "copy", "invalid argument", true)
		a := n.sh(t, on+withFlags(isolated, "--rm")+"ls $NOOK_ROOT/containers/names")
		want(t, "output", a.out, isolatedSays)
		if a.code != 0 || strings.Count(a.said, "copying the image's files") != 2 {
			t.Errorf("it ends with %d and says %q, want a note for each copy", a.code, a.said)
		}
	})
}

// overlayRefused are filters that refuse the mount of an overlay alone: it is
// the one that nook makes without flags.
func overlayRefused(errno unix.Errno) []string {
	return []string{"mount:3&0xffffffff==0=" + unix.ErrnoName(errno)}
}

// TestNestedOverlayRefused: as by a kernel without overlayfs.
func TestNestedOverlayRefused(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		for _, errno := range []unix.Errno{unix.ENODEV, unix.EPERM, unix.EINVAL} {
			n.rules = overlayRefused(errno)
			wantFinding(t, n.must(t, "nook info --format json"), "overlay", "copy", errno.Error(), true)
			a := n.sh(t, withFlags(isolated, "--rm"))
			want(t, "output", a.out, isolatedSays)
			if a.code != 0 || strings.Count(a.said, "\n") != 2 || strings.Count(a.said, errno.Error()+"): copying the image's files") != 2 {
				t.Errorf("overlay refused with %v: it ends with %d and says %q, want a note for each copy", errno, a.code, a.said)
			}
		}
		// With a terminal the monitor is there when the overlay is refused.
		want(t, "with a terminal", n.sh(t, "nook run --rm -t busybox echo ok").out, "ok\r\n")
		// A copy has no limit, and its secrets are in memory all the same.
		wantRefusal(t, n.sh(t, "exec nook run --rm --storage-opt size=1m busybox true"), "limit the writable layer: an overlay with a tmpfs is refused here", "--storage-opt")
		want(t, "a secret", n.sh(t, "KEY=value nook run --rm --secret id=KEY busybox cat /run/secrets/KEY").out, "value")
		wantRefusal(t, n.sh(t, "mount --bind $NOOK_ROOT $NOOK_ROOT; mount -o remount,bind,noexec $NOOK_ROOT; exec nook run --rm busybox true"),
			"is mounted noexec", "--root")
		n.rules = nil
		want(t, "noexec, with an overlay", n.must(t, "mount --bind $NOOK_ROOT $NOOK_ROOT; mount -o remount,bind,noexec $NOOK_ROOT; nook run --rm busybox echo ok"), "ok\n")
	})
}

// TestNestedUpperRefused: the data root's file system takes no upper directory
// and doesn't look like one that wouldn't; a network file system is so, and
// here an overlay whose kind statfs(2) doesn't tell.
func TestNestedUpperRefused(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.rules = []string{"statfs=ENOSYS"}
		on := onOverlay(1)
		a := n.sh(t, on+withFlags(isolated, "--rm"))
		if a.code != 0 || a.out != isolatedSays || a.said != "" {
			t.Errorf("with --rm: %+v, want an upper directory in memory and no note", a)
		}
		a = n.sh(t, on+"nook run busybox echo ok")
		if a.code != 0 || a.out != "ok\n" || !strings.Contains(a.said, "copying the image's files") {
			t.Errorf("without --rm: %+v, want a copy", a)
		}
	})
}

// TestNestedDataRootReadOnly: what only reads works, the rest says why not.
func TestNestedDataRootReadOnly(t *testing.T) {
	const readOnly = "mount --bind $WORK/root $WORK/root; mount -o remount,bind,ro $WORK/root\n"
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		if out := n.must(t, readOnly+"nook images"); !strings.Contains(out, "busybox") {
			t.Errorf("nook images: %q", out)
		}
		info := n.must(t, readOnly+"nook info --format json")
		wantFinding(t, info, "overlay", "none", "read-only file system", true)
		wantFinding(t, info, "sockets", "in the runtime directory", "read-only file system", true)
		wantRefusal(t, n.sh(t, readOnly+"exec nook run --rm busybox true"), "create container: ", "--root")
		a := n.sh(t, readOnly+"exec nook load -q -i $BUSYBOX")
		if a.code != 125 || !strings.Contains(a.said, "read-only file system") {
			t.Errorf("nook load: %+v", a)
		}
		wantRefusal(t, n.sh(t, readOnly+"exec nook --root $WORK/root/new images"), "make the data root: ", "--root")
	})
}

// TestNestedDiskFull: nothing half made stays, whatever there was no room for.
func TestNestedDiskFull(t *testing.T) {
	const small = "mount -t tmpfs -o size=% x $WORK/tmp; export NOOK_ROOT=$WORK/tmp/root\n"
	const leftovers = "find $NOOK_ROOT -path '*/.staging/*' -o -path '*/containers/*' ! -name names ! -name .skeleton ! -path '*/.skeleton/*' | grep . && echo left; true"
	eachOuter(t, func(t *testing.T, n *nested) {
		for name, size := range map[string]string{"the archive": "300k", "the layer": "3m", "inodes": "8m,nr_inodes=60"} {
			a := n.sh(t, withFlags(small, size)+"nook load -q -i $BUSYBOX; code=$?\n"+leftovers+"\nexit $code")
			wantRefusal(t, a, "no space left on device", "make room")
			want(t, "left behind, without room for "+name, a.out, "")
		}
		fill := withFlags(small, "9m") + "nook load -q -i $BUSYBOX; nook run --rm busybox true; dd if=/dev/zero of=$WORK/tmp/fill bs=4k 2>/dev/null\n"
		a := n.sh(t, fill+"nook run --rm busybox true; code=$?\n"+leftovers+"\nexit $code")
		wantRefusal(t, a, "no space left on device", "make room")
		want(t, "left behind by run", a.out, "")
		for _, verb := range []string{"rename one other", "update --restart always one", "tag busybox other"} {
			a = n.sh(t, withFlags(small, "9m")+"nook load -q -i $BUSYBOX; nook create --name one busybox >/dev/null; dd if=/dev/zero of=$WORK/tmp/fill bs=4k 2>/dev/null\n"+
				"exec nook "+verb)
			wantRefusal(t, a, "no space left on device", "make room")
		}
		// The copy of an image is the last to need room.
		a = n.sh(t, "cd $WORK/home; mkdir -p l u w m; mount -t tmpfs -o size=6m x u; mkdir u/u u/w; mount -t overlay -o lowerdir=l,upperdir=u/u,workdir=u/w,userxattr x m; export NOOK_ROOT=$PWD/m/root\n"+
			"nook load -q -i $BUSYBOX; dd if=/dev/zero of=m/fill bs=4k count=200 2>/dev/null; nook run busybox true; code=$?\n"+leftovers+"\nexit $code")
		if a.code != 125 || !strings.Contains(a.said, "copy the image's files: ") || !strings.Contains(a.said, "no space left on device") || a.out != "" {
			t.Errorf("a full disk while the image is copied: %+v", a)
		}
	})
}

// TestNestedOverlayFromOutside: the host's own data root, outside of any
// container, takes the first step.
func TestNestedOverlayFromOutside(t *testing.T) {
	testenv.Need(t, "overlay", testenv.Overlay)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		image := filepath.Join(h.dir, "home", "busybox.tar")
		writeImage(t, image, func(*testimage.Image) {})
		h.run(t, "nook", "load", "-q", "-i", image)
		info := h.run(t, "nook", "info", "--format", "json")
		wantFinding(t, info, "overlay", "overlay", "", false)
		wantFinding(t, info, "sockets", "beside the record", "", false)
		wantFinding(t, info, "ids", m.name, "", m.name == "single")
	})
}
