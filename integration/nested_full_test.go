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
