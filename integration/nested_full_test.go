package integration

import (
	"strings"
	"testing"
)

// TestNestedDiskFilledFromInside: a container that leaves no room for its own
// record is not ended for it, and it is removed as any other.
func TestNestedDiskFilledFromInside(t *testing.T) {
	// The sleep is longer than a monitor waits before it starts and writes the
	// state.
	const script = `mount -t tmpfs -o size=9m x $WORK/tmp; export NOOK_ROOT=$WORK/tmp/root
nook load -q -i $BUSYBOX >$WORK/home/said
dd if=/dev/zero of=$WORK/tmp/fill bs=4k 2>/dev/null; truncate -s -60k $WORK/tmp/fill
nook run --rm busybox sh -c 'cat /dev/zero >/big; sleep 0.1; echo on; exit 3' 2>/dev/null
echo $?
ls $NOOK_ROOT/containers $NOOK_ROOT/containers/names | grep -E '^[0-9a-z_]{8}'`
	eachOuter(t, func(t *testing.T, n *nested) {
		a := n.sh(t, script)
		want(t, "of a container on a full disk", strings.TrimSpace(a.out), "on\n3")
	})
}

// TestNestedDiskFullOfLogs: beside a container that is started again and again
// and one that floods its log, on a disk without room, all can be listed, asked,
// stopped and removed.
func TestNestedDiskFullOfLogs(t *testing.T) {
	const script = `mount -t tmpfs -o size=12m x $WORK/tmp; export NOOK_ROOT=$WORK/tmp/root
nook load -q -i $BUSYBOX >$WORK/home/said
nook run -d --name loop --restart always busybox sh -c 'echo hi; exit 1' >$WORK/home/said
nook run -d --name flood busybox sh -c 'yes | head -c 30000000; touch /dev/shm/done; exec sleep 1000' >$WORK/home/said
dd if=/dev/zero of=$WORK/tmp/fill bs=4k 2>/dev/null
timeout 60 sh -c 'until nook exec flood test -e /dev/shm/done; do :; done' || echo it never ended
timeout 60 sh -c 'until test $(nook inspect -f {{.RestartCount}} loop) -gt 2; do :; done' || echo it was never started again
nook ps -a --format '{{.Names}}'
nook run --rm busybox true 2>/dev/null || echo $?
nook stop -t 0 loop
nook rm -f loop flood
rm $WORK/tmp/fill
nook run --rm busybox echo again
ls -A $NOOK_ROOT/containers/names`
	eachOuter(t, func(t *testing.T, n *nested) {
		a := n.sh(t, script)
		want(t, "on a disk full of logs", a.out, "flood\nloop\n125\nloop\nloop\nflood\nagain\n")
		if a.said != "" {
			t.Errorf("nook says\n%s", a.said)
		}
	})
}
