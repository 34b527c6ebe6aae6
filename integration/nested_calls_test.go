package integration

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
)

// oldest is the first call of the numbers that all machines share: those are
// of Linux 5.1 and later. newest leaves room for calls that are yet to come.
const (
	oldest = unix.SYS_PIDFD_SEND_SIGNAL
	newest = oldest + 60
)

// everything is a container that takes each step that there is.
const everything = `mkdir -p $WORK/home/d; nook run --rm --init -v $WORK/home:/h:ro -v $WORK/home/d:/d --tmpfs /t -w /new/dir busybox sh -c '
	{ touch /h/x; } 2>/dev/null || echo read-only; touch /d/x; pwd; cat /proc/1/comm'`

const everythingSays = "read-only\n/new/dir\n"

// TestNestedNewerCalls: each call that is newer than Linux 5.0 is refused by
// itself, as by a filter that is older than it, or by a kernel; and some that
// are older and that filters leave out.
func TestNestedNewerCalls(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		calls := []uint32{unix.SYS_EXECVEAT, unix.SYS_MEMFD_CREATE, unix.SYS_RENAMEAT2, unix.SYS_COPY_FILE_RANGE, unix.SYS_STATX, unix.SYS_KEYCTL}
		for call := uint32(oldest); call <= newest; call++ {
			calls = append(calls, call)
		}
		for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
			for _, call := range calls {
				n.rules = []string{fmt.Sprintf("%d=%s", call, unix.ErrnoName(errno))}
				a := n.sh(t, everything)
				if a.code != 0 || !strings.HasPrefix(a.out, everythingSays) || a.said != "" {
					t.Errorf("call %d refused with %v: nook run ends with %d and says\n%s%s", call, errno, a.code, a.out, a.said)
				}
			}
		}
	})
}

// TestNestedNoNewerCall: none of them is there. All ladders are at their end.
func TestNestedNoNewerCall(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
			n.rules = []string{fmt.Sprintf("%d-%d=%s", oldest, newest, unix.ErrnoName(errno))}
			n.loaded(t)
			a := n.sh(t, everything)
			if a.code != 0 || !strings.HasPrefix(a.out, everythingSays) {
				t.Errorf("all refused with %v: nook run ends with %d and says\n%s%s", errno, a.code, a.out, a.said)
			}
			a = n.sh(t, "mount -t tmpfs x /proc/irq; mount -t tmpfs x /sys/firmware; mkdir /dev/shm/below; exec nook run --rm busybox sh -c 'touch /sys/x /proc/sys/x /sys/firmware/x; cat /proc/self/mounts'")
			if a.code != 0 {
				t.Errorf("with /proc and /sys masked too, nook run ends with %d and says\n%s", a.code, a.said)
			}
			for line := range strings.Lines(a.out) {
				f := strings.Fields(line)
				device := f[2] == "devtmpfs" // /dev/null over a file
				if (strings.HasPrefix(f[1], "/proc") || strings.HasPrefix(f[1], "/sys")) && !strings.HasPrefix(f[3], "ro,") && !device {
					t.Errorf("%v: a mount of the host's that can be written to: %s", errno, line)
				}
			}
			info := n.must(t, "nook info --format json")
			wantFinding(t, info, "mounts", "mount", "open_tree and mount_setattr refused", true)
			wantFinding(t, info, "paths", "walked component by component", "openat2", true)
		}
		n.rules = nil
		info := n.must(t, "nook info --format json")
		wantFinding(t, info, "mounts", "open_tree, mount_setattr", "", false)
		wantFinding(t, info, "paths", "openat2", "", false)
	})
}

// TestNestedReadOnlyBindIsNeverWeaker: without mount_setattr(2) what is
// mounted below a read-only bind could be written to, so it is refused.
func TestNestedReadOnlyBindIsNeverWeaker(t *testing.T) {
	const below = "mkdir -p $WORK/home/b/sub; mount -t tmpfs x $WORK/home/b/sub\n"
	const run = "exec nook run --rm -v $WORK/home/b:/b%s busybox sh -c 'touch /b/sub/x && echo wrote'"
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		if a := n.sh(t, below+fmt.Sprintf(run, ":ro")); strings.Contains(a.out, "wrote") || !strings.Contains(a.said, "Read-only file system") {
			t.Errorf("with mount_setattr(2): %+v", a)
		}
		for _, errno := range []string{"ENOSYS", "EPERM"} {
			refuse := below + strings.Replace(run, "exec", "exec refuse mount_setattr="+errno+" --", 1)
			a := n.sh(t, fmt.Sprintf(refuse, ":ro"))
			if a.code != 125 || a.out != "" || !strings.Contains(a.said, "/b read-only (mount_setattr(2) is refused here, so nothing may be mounted below it)") || strings.Count(a.said, "\n") != 1 {
				t.Errorf("mount_setattr(2) refused with %s: %+v", errno, a)
			}
			want(t, "a bind that can be written to", n.must(t, fmt.Sprintf(refuse, "")), "wrote\n")
		}
	})
}

// TestNestedReadOnlyBindKeepsFlags: a mount must not lose what the outer
// container was given it with, and mount(2) has to name all of it.
func TestNestedReadOnlyBindKeepsFlags(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		for flags, want := range map[string]string{"nosuid": "ro,nosuid,", "nodev,noexec": "ro,nodev,noexec,", "noexec,noatime": "ro,noexec,noatime"} {
			a := n.sh(t, "mkdir -p $WORK/home/f; mount -t tmpfs -o "+flags+" x $WORK/home/f\n"+
				"exec refuse mount_setattr=ENOSYS -- nook run --rm --read-only -v $WORK/home/f:/f:ro busybox sh -c 'grep \" /f \" /proc/mounts; touch /x'")
			if !strings.Contains(a.out, want) || !strings.Contains(a.said, "/x: Read-only file system") {
				t.Errorf("of a mount with %s: %+v, want %q", flags, a, want)
			}
		}
	})
}

// TestNestedUserNamespacesRefused: a filter as docker's default profile has
// it, which looks at the flags of clone(2).
func TestNestedUserNamespacesRefused(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	eachMode(t, func(t *testing.T, m mode) {
		n := &nested{host: newTestHost(t, m)}
		n.rules = []string{
			fmt.Sprintf("clone:0&%d==%[1]d=EPERM", unix.CLONE_NEWUSER), "unshare=EPERM", "clone3=ENOSYS",
		}
		n.ids = "auto"
		wantRefusal(t, n.do(t, n.nook("run", "--rm", "hello")), "create a user namespace: clone: operation not permitted", "seccomp profile")
	})
}

// TestNestedLimits: each kind of namespace is used up, as an outer container
// may set it for what is inside.
func TestNestedLimits(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		for _, kind := range []string{"user", "pid", "mnt", "uts", "ipc", "net", "cgroup"} {
			limit := "user.max_" + kind + "_namespaces"
			a := n.sh(t, "echo 0 >/proc/sys/user/max_"+kind+"_namespaces; exec nook run --rm busybox true")
			wantRefusal(t, a, "create namespaces: ", "sysctl -w "+limit)
			if !strings.Contains(a.said, "the limit "+limit+" is reached") {
				t.Errorf("%s is 0: nook says\n%s", limit, a.said)
			}
		}
		info := n.must(t, "echo 0 >/proc/sys/user/max_user_namespaces; nook info --format json")
		wantFinding(t, info, "userNamespaces", "none", "user.max_user_namespaces", true)
	})
}
