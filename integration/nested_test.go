package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// The ladders of docs/design/nested.md, on hosts that are made poor for real:
// namespaces around nook in which something is covered, missing or refused.

// outer is a kind of container around nook.
type outer struct {
	name    string
	unshare []string // arguments of unshare(1)
	mode    string   // the ids that nook finds in it
}

// outers are those that this user can make. In each, nook is root.
func outers() []outer {
	list := []outer{{"one id", []string{"-U", "-r"}, "single"}}
	if os.Geteuid() != 0 { // root of the host has no sub-ids
		list = append(list, outer{"many ids", []string{"-U", "--map-root-user", "--map-auto"}, "root"})
	}
	return list
}

// nested is nook inside of an outer container.
type nested struct {
	*host
	outer outer
	rules []string // what refuse(1) refuses in it
	extra []string
}

// eachOuter runs f in each kind of outer container, with an image loaded from
// outside for it.
func eachOuter(t *testing.T, f func(t *testing.T, n *nested)) {
	t.Helper()
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "overlay", testenv.Overlay)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	for _, o := range outers() {
		t.Run(o.name, func(t *testing.T) {
			if o.mode == "root" {
				testenv.Need(t, "subids", testenv.Subids)
			}
			f(t, newNested(t, o))
		})
	}
}

func newNested(t *testing.T, o outer) *nested {
	t.Helper()
	n := &nested{host: newTestHost(t, mode{ids: "auto"}), outer: o}
	writeImage(t, n.archive(), func(*testimage.Image) {})
	return n
}

// archive is the image that tests load.
func (n *nested) archive() string { return filepath.Join(n.dir, "home", "busybox.tar") }

// answered is what a script in an outer container came to.
type answered struct {
	out, said string
	code      int
}

// sh runs a shell script in a new outer container.
func (n *nested) sh(t *testing.T, script string) answered {
	t.Helper()
	args := append(append([]string{}, n.outer.unshare...), n.extra...)
	args = append(args, "-m", "-p", "-f", "--mount-proc")
	// Its root makes the filter, and so needs no no_new_privs.
	return n.do(t, n.cmd("unshare", append(args, n.refusing("sh", "-c", script)...)...))
}

// refusing is a command with the calls of n.rules refused.
func (n *nested) refusing(command ...string) []string {
	if len(n.rules) == 0 {
		return command
	}
	return append(append(append([]string{"refuse"}, n.rules...), "--"), command...)
}

// nook is a command of nook outside of any container, with the calls of n.rules
// refused.
func (n *nested) nook(args ...string) *exec.Cmd {
	command := n.refusing(append([]string{"nook"}, args...)...)
	return n.cmd(command[0], command[1:]...)
}

// do runs a command.
func (n *nested) do(t *testing.T, cmd *exec.Cmd) answered {
	t.Helper()
	cmd.Env = append(cmd.Env, "BUSYBOX="+n.archive(), "WORK="+n.dir)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || !exit.Exited()) {
		t.Fatalf("%s: %v\n%s", cmd, err, said.String())
	}
	return answered{out.String(), said.String(), cmd.ProcessState.ExitCode()}
}

// must is sh for a script that has to succeed; it returns its output.
func (n *nested) must(t *testing.T, script string) string {
	t.Helper()
	a := n.sh(t, "set -e\n"+script)
	if a.code != 0 {
		t.Fatalf("the script ends with %d\n%s\n%s%s", a.code, script, a.out, a.said)
	}
	return a.out
}

// loaded loads the image, as the outer container's user.
func (n *nested) loaded(t *testing.T) *nested {
	t.Helper()
	n.must(t, "nook load -q -i $BUSYBOX")
	return n
}

// finding is a part of nook info.
type finding struct{ Use, Why, Cost string }

// infos are the findings by their JSON names; ids, cgroup and the rest of the
// answer are made findings too.
func infos(t *testing.T, out string) map[string]finding {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("nook info --format json: %v\n%s", err, out)
	}
	found := map[string]finding{}
	for name, raw := range all {
		var f struct {
			finding
			Mode, Hierarchy string
		}
		if json.Unmarshal(raw, &f) != nil {
			continue
		}
		f.Use += f.Mode + f.Hierarchy
		found[name] = f.finding
	}
	return found
}

// wantFinding checks one finding: what is in use, a part of why, and that a
// step that is not the best has a price.
func wantFinding(t *testing.T, out, name, use, why string, costs bool) {
	t.Helper()
	got := infos(t, out)[name]
	if got.Use != use || !strings.Contains(got.Why, why) || (got.Cost != "") != costs {
		t.Errorf("info says of %s: %+v\nwant use %q, why with %q, a cost: %v", name, got, use, why, costs)
	}
}

// wantRefusal checks that nook answered with one line of fact, one hint and
// its own exit code.
func wantRefusal(t *testing.T, a answered, fact, advice string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(a.said, "\n"), "\n")
	if a.code != 125 || len(lines) != 2 || !strings.HasPrefix(lines[0], "nook: ") || !strings.Contains(lines[0], fact) ||
		!strings.HasPrefix(lines[1], "hint: ") || !strings.Contains(lines[1], advice) {
		t.Errorf("it ends with %d and says\n%s\nwant 125, a line with %q and a hint with %q", a.code, a.said, fact, advice)
	}
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestNestedProcMasked: parts of the outer /proc are covered, as docker does
// it, so that no new instance can be mounted.
func TestNestedProcMasked(t *testing.T) {
	for name, mask := range map[string]string{
		"a file":      "mount --bind /dev/null /proc/keys",
		"a directory": "mount -t tmpfs x /proc/irq",
		"read-only":   "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
	} {
		t.Run(name, func(t *testing.T) {
			eachOuter(t, func(t *testing.T, n *nested) {
				n.loaded(t)
				wantFinding(t, n.must(t, "nook info --format json"), "proc", "own instance", "", false)
				info := n.must(t, mask+"\nnook info --format json")
				wantFinding(t, info, "proc", "the host's, read-only", "mount proc", true)
				wantFinding(t, info, "ids", n.outer.mode, "", n.outer.mode == "single")

				inside := mask + "; : the outer shell\n"
				want(t, "pid", n.must(t, inside+"nook run --rm busybox sh -c 'echo $$'"), "1\n")
				out := n.must(t, inside+`nook run --rm busybox sh -c 'tr "\0" " " </proc/1/cmdline'`)
				if !strings.Contains(out, ": the outer shell") {
					t.Errorf("/proc/1 of the container is %q, want the outer container's", out)
				}
				// Whose root is the outer container's, as the monitor's is, must be
				// out of reach.
				out = n.must(t, inside+`nook run --rm -e WORK busybox sh -c '
					for f in /proc/sys/kernel/hostname /proc/self/comm /proc/sysrq-trigger; do
						{ echo x >$f; } 2>/dev/null && echo wrote $f
					done
					for p in /proc/[0-9]*; do test -e $p/root/bin/busybox && echo -n own; test -e $p/root$WORK && echo $p; done; true'`)
				want(t, "what can be written, and roots within reach", out, "own")
				want(t, "user", n.must(t, inside+"nook run --rm -u alice busybox id -u"), "1000\n")
			})
		})
	}
}

// TestNestedProcOfProcessesAlone: a new instance would show more than the
// host's does, and what it is to be masked by can't be seen beforehand.
func TestNestedProcOfProcessesAlone(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		const mask = "mount -t proc -o subset=pid proc /proc\n"
		wantFinding(t, n.must(t, mask+"nook info --format json"), "proc", "the host's, read-only", "processes alone", true)
		want(t, "/proc/sys", n.must(t, mask+"nook run --rm busybox sh -c 'test ! -e /proc/sys && echo none'"), "none\n")
	})
}

func TestNestedWithoutProc(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		wantRefusal(t, n.sh(t, "mount -t tmpfs x /proc; exec nook run --rm busybox true"), "/proc/self/uid_map", "nook needs /proc")
	})
}

// TestNestedSysMasked is TestNestedProcMasked for sysfs.
func TestNestedSysMasked(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		n.loaded(t)
		wantFinding(t, n.must(t, "nook info --format json"), "sysfs", "own instance, read-only", "", false)
		const mask = "mount -t tmpfs x /sys/firmware; mount -t tmpfs x /sys/fs/cgroup; mkdir /sys/fs/cgroup/mine\n"
		wantFinding(t, n.must(t, mask+"nook info --format json"), "sysfs", "the host's, read-only", "mount sysfs", true)
		out := n.must(t, mask+`nook run --rm busybox sh -c 'cd /sys/fs/cgroup && ls; { echo >x; } 2>/dev/null || echo read-only'`)
		want(t, "/sys/fs/cgroup", out, "mine\nread-only\n")
	})
}

// TestNestedCgroup: nothing of a cgroup file system is needed to run.
func TestNestedCgroup(t *testing.T) {
	for _, test := range []struct{ name, setup, hierarchy, why string }{
		{"absent", "mount -t tmpfs x /sys/fs/cgroup", "none", "no cgroup file system"},
		{"v2, read-only", "mount -t cgroup2 -o ro x /sys/fs/cgroup", "v2", "read-only"},
		{"v1, read-only", "mount -t tmpfs x /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory; mount -o remount,ro x /sys/fs/cgroup", "v1", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			eachOuter(t, func(t *testing.T, n *nested) {
				n.extra = []string{"-C"} // cgroup2 is mounted in a namespace of its own
				n.loaded(t)
				info := n.must(t, test.setup+"\nnook info --format json")
				wantFinding(t, info, "cgroup", test.hierarchy, test.why, true)
				want(t, "output", n.must(t, test.setup+"\nnook run --rm busybox echo ok"), "ok\n")
			})
		})
	}
}

// TestNestedDev: an outer /dev of a few nodes. /dev/net/tun is not among them.
func TestNestedDev(t *testing.T) {
	const dev = `
		mount -t tmpfs dev $WORK/tmp
		for n in %; do touch $WORK/tmp/$n; mount --bind /dev/$n $WORK/tmp/$n; done
		mount --rbind $WORK/tmp /dev
		test ! -e /dev/net/tun
	`
	for name, nodes := range map[string]string{
		"usual": "null zero full random urandom tty", "null alone": "null",
	} {
		t.Run(name, func(t *testing.T) {
			eachOuter(t, func(t *testing.T, n *nested) {
				n.loaded(t)
				out := n.must(t, strings.Replace(dev, "%", nodes, 1)+
					"nook run --rm busybox sh -c 'cd /dev; for n in null zero full random urandom tty; do test -c $n && echo -n $n\" \"; done; test -e tty -a ! -c tty || echo'")
				want(t, "devices", out, nodes+" \n")
			})
		})
	}
}

// TestNookInNook: docker's seccomp profile, which a container of nook has too,
// refuses new namespaces; nook says so.
func TestNookInNook(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		n := &nested{host: h}
		writeImage(t, n.archive(), func(*testimage.Image) {})
		h.run(t, "nook", "load", "-q", "-i", n.archive())
		run := []string{"run", "--rm", "-e", "NOOK_ROOT=/root/nook", "-v", h.bin + ":/nook:ro", "-v", filepath.Join(h.dir, "home") + ":/in:ro", "busybox", "/nook/nook"}
		for _, args := range [][]string{{"load", "-q", "-i", "/in/busybox.tar"}, {"run", "--rm", "hello"}} {
			wantRefusal(t, n.do(t, h.cmd("nook", append(run, args...)...)), "create a user namespace: clone: operation not permitted", "seccomp profile")
		}
		info := h.run(t, "nook", append(run, "info", "--format", "json")...)
		wantFinding(t, info, "userNamespaces", "none", "operation not permitted", true)
	})
}
