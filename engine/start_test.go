package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/raw"
	"nook/rootfs"
)

func TestExplainPivotRoot(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{unix.EINVAL: true, unix.EPERM: false} {
		err := explain(&raw.Error{Step: rootfs.StepPivot, Errno: errno}, "true")
		if want != (hint.Of(err) != "") {
			t.Errorf("%v: got %v with the hint %q", errno, err, hint.Of(err))
		}
	}
}
