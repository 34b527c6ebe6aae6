package testenv

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const asMonitor = "NOOK_TEST_AS_MONITOR"

// AsMonitor runs the calling test once more, in a process that stands as a
// container's monitor does: pid 1 of a pid namespace and root of a user
// namespace, with the host's /proc. It is true there. What it starts ends with
// it. In the first process, where it is false, it reports how that went; the
// test must not skip in the second, where probes may see less.
//
//	if !testenv.AsMonitor(t) {
//		return
//	}
func AsMonitor(t *testing.T) bool {
	t.Helper()
	if IsMonitor() {
		return true
	}
	Need(t, "userns", UserNS)
	out, err := MonitorCommand(t.Context(), t.Name()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
		t.Errorf("as a monitor: %v\n%s", err, out)
	}
	return false
}

// MonitorCommand is the command that AsMonitor runs: a test of this binary.
func MonitorCommand(ctx context.Context, test string) *exec.Cmd {
	parts := strings.Split(test, "/")
	for i, part := range parts {
		parts[i] = "^" + part + "$"
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.v", "-test.count=1", "-test.run", strings.Join(parts, "/"))
	cmd.Env = append(os.Environ(), asMonitor+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
		Setsid:      true, // a signal for its group is not ours
	}
	return cmd
}

// IsMonitor tells whether this process is one that AsMonitor started: the
// TestMain of a package that uses it runs the tests as they are then.
func IsMonitor() bool { return os.Getenv(asMonitor) != "" }
