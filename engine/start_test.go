package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/raw"
	"nook/rootfs"
)

func TestExplainAnIDThatIsNotMapped(t *testing.T) {
	for step, want := range map[string]bool{"mount a tmpfs on /x": true, "change the owner of secret a": true, "mount proc": false} {
		err := explain(&raw.Error{Step: step, Errno: unix.EINVAL}, "true")
		if want != (hint.Of(err) != "") {
			t.Errorf("%s: got %v with the hint %q", step, err, hint.Of(err))
		}
	}
}

func TestExplainPivotRoot(t *testing.T) {
	for errno, want := range map[unix.Errno]bool{unix.EINVAL: true, unix.EPERM: false} {
		err := explain(&raw.Error{Step: rootfs.StepPivot, Errno: errno}, "true")
		if want != (hint.Of(err) != "") {
			t.Errorf("%v: got %v with the hint %q", errno, err, hint.Of(err))
		}
	}
}
