package integration

import (
	"os"
	"strings"
	"testing"

	"nook/internal/testenv"
)

// TestNestedIDs: each reason for which newuidmap(1) can't be used makes auto
// take the single mode and tell the reason; --ids mapped refuses with it.
func TestNestedIDs(t *testing.T) {
	if os.Geteuid() == 0 {
		return // root writes its maps itself
	}
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	testenv.Need(t, "subids", testenv.Subids)
	const copies = `mkdir $WORK/tmp/bin; cp $(command -v newuidmap) $(command -v newgidmap) $WORK/tmp/bin; `
	for _, test := range []struct{ name, before, why, advice string }{
		{"not installed", `mkdir $WORK/tmp/bin; export PATH=$WORK/tmp/bin; `, "newuidmap isn't in PATH", "uidmap"},
		{"another's", copies + `chmod u+s $WORK/tmp/bin/*; export PATH=$WORK/tmp/bin; `, "set-user-ID of uid", "uidmap"},
		{"without privilege", copies + `export PATH=$WORK/tmp/bin:$PATH; `, "is not set-user-ID root", "uidmap"},
		{"no_new_privs", `set -- setpriv --no-new-privs "$@"; `, "no_new_privs is set", "no-new-privileges"},
		// One id exists there, so root's file is nobody's.
		{"root is not mapped", `set -- unshare -U --map-user=4321 --map-group=4321 "$@"; `, "set-user-ID of uid 65534", "uidmap"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNested(t, outer{})
			// The arguments are the command; what comes before may put another
			// around it.
			nook := func(args ...string) answered {
				script := test.before + `"$@"; code=$?; /bin/rm -rf $WORK/tmp/*; exit $code`
				return n.do(t, n.cmd("sh", append([]string{"-c", script, "sh", n.bin + "/nook"}, args...)...))
			}
			a := nook("info", "--format", "json")
			wantFinding(t, a.out, "ids", "single", test.why, true)
			if a := nook("load", "-q", "-i", n.archive()); a.code != 0 {
				t.Fatalf("nook load: %+v", a)
			}
			want(t, "id map", strings.Join(strings.Fields(nook("run", "--rm", "busybox", "sh", "-c", "cut -c 1-10 /proc/self/uid_map; id -u").out), " "), "0 0")
			wantRefusal(t, nook("--ids", "mapped", "run", "--rm", "busybox", "true"), "--ids mapped: ", test.advice)
		})
	}
}

// TestNestedSubids: inside of a container that has many ids, nook as a user of
// it, with helpers of its own.
func TestNestedSubids(t *testing.T) {
	if os.Geteuid() == 0 {
		return // root of the host has no sub-ids for an outer container
	}
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	testenv.Need(t, "subids", testenv.Subids)
	// The outer root owns the copies, so they are set-user-ID of its root.
	const setup = `set -e
		mount -t tmpfs -o mode=755 x /mnt; mkdir /mnt/bin /mnt/root; chown 1:1 /mnt/root; cp $BUSYBOX /mnt/busybox.tar
		cp $(command -v newuidmap) $(command -v newgidmap) /mnt/bin; chmod u+s /mnt/bin/*
		printf '%b' "$SUBIDS" >/mnt/subids; for f in /etc/subuid /etc/subgid; do mount --bind /mnt/subids $f; done
		export PATH=/mnt/bin:$PATH NOOK_ROOT=/mnt/root XDG_RUNTIME_DIR= TMPDIR=/mnt/root HOME=/
		cd /; as() { setpriv --reuid 1 --regid 1 --clear-groups "$@"; }
	`
	for _, test := range []struct{ name, subids, mode, why string }{
		{"no line", "", "single", "/etc/subuid has no line for daemon"},
		{"another's line", "bin:2000:1000\n", "single", "/etc/subuid has no line for daemon"},
		{"a range that isn't there", "daemon:900000:65536\n", "single", "ids 900000 to 965535 don't exist in this user namespace"},
		{"a range", "daemon:2000:1000\n", "mapped", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNested(t, outer{unshare: []string{"-U", "--map-root-user", "--map-auto"}})
			n.ids = "auto"
			script := strings.ReplaceAll(setup, "$SUBIDS", strings.ReplaceAll(test.subids, "\n", `\n`))
			wantFinding(t, n.must(t, script+"as nook info --format json"), "ids", test.mode, test.why, test.mode == "single")
			out := n.must(t, script+"as nook load -q -i /mnt/busybox.tar; as nook run --rm busybox sh -c 'echo x >/x; chown 1000:50 /x; ls -n /x; cat /proc/self/uid_map' | tr -s ' '")
			owner, maps := "0 0", "0 1 1"
			if test.mode == "mapped" {
				owner, maps = "1000 50", "0 1 1\n 1 2000 1000"
			}
			if !strings.Contains(out, " 1 "+owner+" ") || !strings.HasSuffix(out, "\n "+maps+"\n") {
				t.Errorf("the file of 1000:50 and the id map are\n%s\nwant owner %s and map %q", out, owner, maps)
			}
		})
	}
}

func TestNestedChroot(t *testing.T) {
	eachOuter(t, func(t *testing.T, n *nested) {
		a := n.sh(t, `set -e
			mkdir -p $WORK/tree/bin $WORK/tree/proc $WORK/tree/dev
			cp "$(command -v nook)" $WORK/tree/bin/nook
			cp $BUSYBOX $WORK/tree/busybox.tar
			mount --rbind /proc $WORK/tree/proc
			mount --rbind /dev $WORK/tree/dev
			chroot $WORK/tree /bin/nook --root /r load -q -i /busybox.tar >&2
			exec chroot $WORK/tree /bin/nook --root /r run busybox true`)
		wantRefusal(t, a, "this is a chroot, in which the kernel makes none", "enter the tree by pivot_root")
	})
}
