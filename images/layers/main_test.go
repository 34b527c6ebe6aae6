package layers

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"nook/internal/testenv"
)

// The tests run as code in a stage runs, as uid 0 of a user and mount
// namespace of their own:
//
//	go test ─> layers.test (a user; root becomes one) ─> layers.test in the namespace
//
// Those that need more ids than one start themselves again, see inMapped.
const stageVariable = "NOOK_TEST_STAGE"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(stageVariable) == "mapped":
		// The parent writes the maps and then closes the pipe.
		_, _ = os.NewFile(3, "maps").Read(make([]byte, 1))
		fallthrough
	case os.Getenv(stageVariable) != "":
		os.Exit(m.Run())
	case os.Geteuid() == 0, testenv.UserNS() != nil:
		testenv.RunAsTestUser(m)
	}
	cmd := stageCommand(os.Args[1:]...)
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	cmd.Env = append(os.Environ(), stageVariable+"=single")
	runtime.LockOSThread() // the child ends with this thread
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

func stageCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd
}

// inStage skips the test where there is no user namespace to run it in.
func inStage(t testing.TB) {
	t.Helper()
	testenv.Need(t, "userns", func() error {
		if os.Getenv(stageVariable) != "" {
			return nil
		}
		return testenv.UserNS()
	})
	if os.Getenv(stageVariable) == "" && !strings.Contains(strings.Join(os.Args, " "), "-test.fuzz") {
		t.Fatal("not in a stage")
	}
}
