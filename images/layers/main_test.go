package layers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nook/internal/testenv"
)

// The tests run as code in a stage runs, as uid 0 of a user and mount
// namespace of their own, and where there are subordinate ids once more with
// those:
//
//	go test ─> layers.test (a user; root becomes one) ─┬> layers.test, one id
//	                                                   └> layers.test, mapped ids
const (
	stageVariable  = "NOOK_TEST_STAGE"  // single or mapped
	subidsVariable = "NOOK_TEST_SUBIDS" // why there is no mapped stage
)

func TestMain(m *testing.M) {
	switch stage := os.Getenv(stageVariable); {
	case stage == "mapped":
		// The parent writes the maps and then closes its end.
		_, _ = os.NewFile(3, "maps").Read(make([]byte, 1))
		os.Exit(m.Run())
	case stage != "", os.Geteuid() != 0 && testenv.UserNS() != nil:
		os.Exit(m.Run())
	case os.Geteuid() == 0:
		testenv.RunAsTestUser(m)
	}
	runtime.LockOSThread() // the children end with this thread
	noSubids := testenv.Subids()
	single := stageCommand("single")
	single.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	single.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	if noSubids != nil {
		single.Env = append(single.Env, subidsVariable+"="+noSubids.Error())
	}
	code := exitCode(single, single.Run())
	if code == 0 && noSubids == nil && !strings.Contains(strings.Join(os.Args, " "), "-test.fuzz") {
		mapped := stageCommand("mapped")
		code = exitCode(mapped, runMapped(mapped))
	}
	os.Exit(code)
}

func exitCode(cmd *exec.Cmd, err error) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

func stageCommand(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stage)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	return cmd
}

// runMapped gives the child the ids of /etc/subuid. Its exec comes before the
// maps, so ambient capabilities are what it keeps its own by.
func runMapped(cmd *exec.Cmd) error {
	const lastCapability = 40
	for c := range uintptr(lastCapability + 1) {
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, c)
	}
	wait, ready, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.ExtraFiles = []*os.File{wait}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = wait.Close()
	err = errors.Join(
		writeMap(cmd.Process.Pid, "newuidmap", "/etc/subuid", os.Getuid()),
		writeMap(cmd.Process.Pid, "newgidmap", "/etc/subgid", os.Getgid()))
	if err != nil {
		_ = cmd.Process.Kill()
	}
	_ = ready.Close()
	return errors.Join(err, cmd.Wait())
}

func writeMap(pid int, helper, file string, self int) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != me.Username && f[0] != me.Uid {
			continue
		}
		out, err := exec.Command(helper, strconv.Itoa(pid), "0", strconv.Itoa(self), "1", "1", f[1], f[2]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", helper, err, out)
		}
		return nil
	}
	return fmt.Errorf("%s has no range for %s", file, me.Username)
}

// inStage skips the test where there is no user namespace to run it in. A
// fuzzing run of root's is as good as one.
func inStage(t testing.TB) {
	t.Helper()
	if os.Getenv(stageVariable) == "" && os.Geteuid() != 0 {
		testenv.Need(t, "userns", testenv.UserNS)
		t.Fatal("not in a stage")
	}
}

// inMapped is true in the stage with mapped ids. It skips the test where there
// is none; elsewhere the test has nothing to do, as its turn is to come.
func inMapped(t testing.TB) bool {
	t.Helper()
	inStage(t)
	if why := os.Getenv(subidsVariable); why != "" {
		testenv.Need(t, "subids", func() error { return errors.New(why) })
	}
	return os.Getenv(stageVariable) == "mapped"
}

// runProgram gives what a program prints, or skips the test where it isn't
// installed.
func runProgram(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	testenv.Need(t, name, testenv.Program(name, "--version"))
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}
