package pause

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nook/cgroups"
	"nook/containers/processes"
	"nook/internal/testenv"
)

// The variables that make this binary a process of a container: a busy one with
// several threads, or one that ends its child when it finds it stopped.
const (
	spinning = "NOOK_TEST_SPIN"
	waiting  = "NOOK_TEST_PARENT"
)

// TestMain runs the tests as a user and once more as root, who may have a
// freezer where users have none.
func TestMain(m *testing.M) {
	if os.Getenv(spinning) != "" {
		spin()
	}
	if os.Getenv(waiting) != "" {
		os.Exit(waitForStop())
	}
	if testenv.IsMonitor() {
		os.Exit(m.Run())
	}
	code := testenv.AsTestUser(m)
	if testenv.Drops() {
		code = max(code, m.Run())
	}
	os.Exit(code)
}

func spin() {
	runtime.GOMAXPROCS(4)
	for range 3 {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
	}
	select {}
}

func waitForStop() int {
	child, err := os.StartProcess(testenv.Busybox, []string{"sleep", "1001"}, &os.ProcAttr{})
	if err != nil {
		return 1
	}
	fmt.Println("ready")
	var status unix.WaitStatus
	for !status.Stopped() {
		if _, err := unix.Wait4(child.Pid, &status, unix.WUNTRACED, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return 1
		}
	}
	_ = child.Kill()
	return 1
}

func freezer() error {
	f, err := cgroups.NewFreezer("nook-test-probe-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		return err
	}
	return f.Remove()
}

// container is one whose monitor is the test.
type container struct {
	monitor int
	*Pauser
}

// start runs a shell script as pid 1 of a container and waits until it says
// that it is ready.
func start(t *testing.T, script string) container {
	t.Helper()
	return startOn(t, nil, script)
}

// startOn has a terminal for it, or nil.
func startOn(t *testing.T, tty *os.File, script string) container {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"sh", "sleep", "true", "kill"} {
		if err := os.Symlink(testenv.Busybox, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "sh"), "-c", script, exe)
	cmd.Env = []string{"PATH=" + bin}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if tty != nil {
		cmd.Stdin = tty
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the container says %q, %v", line, err)
	}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := strconv.Atoi(self)
	if err != nil {
		t.Fatal(err)
	}
	p := New("test"+self, monitor)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return container{monitor, p}
}

func (c container) list(t *testing.T) map[int]processes.Process {
	t.Helper()
	list, err := processes.List(c.monitor)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]processes.Process{}
	for _, p := range list {
		out[p.Pid] = p
	}
	return out
}

// work is what the processes did so far: it grows while any of them runs.
func (c container) work(t *testing.T) string {
	t.Helper()
	var out []string
	for _, p := range c.list(t) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			text, _ := os.ReadFile(task)
			out = append(out, task+" "+string(text))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// until looks again and again.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for !f() {
		if t.Context().Err() != nil {
			t.Fatalf("never: %s", what)
		}
		runtime.Gosched()
	}
}

// eachWay runs a test with the freezer and with signals.
func eachWay(t *testing.T, test func(t *testing.T, way string)) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	for _, way := range []string{ByFreezer, BySignals} {
		t.Run(way, func(t *testing.T) {
			if way == ByFreezer && !testenv.IsMonitor() {
				testenv.Need(t, "freezer", freezer)
			}
			if testenv.AsMonitor(t) {
				test(t, way)
			}
		})
	}
}

// happy is a tree that starts processes all the time, four at once and some
// that nobody waits for, with threads beside them.
const happy = `
	NOOK_TEST_SPIN=1 "$0" &
	for i in 1 2 3 4; do (while :; do (true; sleep 0 & ); done) & done
	while :; do true & wait $!; echo ready; exec >&-; done`

func TestNothingRunsInAPausedContainer(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		c := start(t, happy)
		c.noFreezer = way == BySignals
		for range 3 {
			if err := c.Pause(); err != nil {
				t.Fatal(err)
			}
			if c.How() != way {
				t.Fatalf("paused by %q, want %q", c.How(), way)
			}
			before := c.work(t)
			if len(c.list(t)) < 6 {
				t.Errorf("got %d processes, want the six that stay at least", len(c.list(t)))
			}
			for range 50 {
				if after := c.work(t); after != before {
					t.Fatalf("a process ran. Before:\n%s\nafter:\n%s", before, after)
				}
			}
			if err := c.Pause(); err != nil || c.How() != way {
				t.Errorf("paused once more: %v, by %q", err, c.How())
			}
			if err := c.Resume(); err != nil || c.How() != "" {
				t.Fatalf("resume: %v, %q", err, c.How())
			}
			until(t, "the processes run again", func() bool { return c.work(t) != before })
			until(t, "all of them", func() bool { return !c.anyStopped(t) })
		}
	})
}

func (c container) anyStopped(t *testing.T) bool {
	for _, p := range c.list(t) {
		if p.State == 'T' {
			return true
		}
	}
	return false
}

// TestStoppedBeforeStaysStopped: what job control stopped is not ours to wake.
func TestStoppedBeforeStaysStopped(t *testing.T) {
	eachWay(t, func(t *testing.T, way string) {
		c := start(t, `sleep 1001 & sleep 1002 & kill -STOP $!; echo ready; wait`)
		c.noFreezer = way == BySignals
		states := func() (first, runs, stopped byte) {
			state := map[int]byte{}
			for _, p := range c.list(t) {
				state[p.Inner] = p.State
			}
			return state[1], state[2], state[3]
		}
		asBefore := func() bool {
			first, runs, stopped := states()
			return first == 'S' && runs == 'S' && stopped == 'T'
		}
		until(t, "the second is stopped", asBefore)
		for range 3 {
			if err := c.Pause(); err != nil {
				t.Fatal(err)
			}
			if first, runs, stopped := states(); way == BySignals && (first != 'T' || runs != 'T' || stopped != 'T') {
				t.Errorf("paused: the states are %c %c %c, want T of all", first, runs, stopped)
			}
			if err := c.Resume(); err != nil {
				t.Fatal(err)
			}
			if _, _, stopped := states(); stopped != 'T' {
				t.Fatalf("resumed: the one that was stopped before is %c, want T", stopped)
			}
			until(t, "all are as before", asBefore)
		}
	})
}

// TestParentSeesNoStop: a shell with job control tells of every child that it
// finds stopped, and takes its terminal away.
func TestParentSeesNoStop(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		tty    bool
	}{
		"child":             {`NOOK_TEST_PARENT=1 "$0" & wait`, false},
		"child, terminal":   {`NOOK_TEST_PARENT=1 "$0" & wait`, true},
		"grandchild":        {`(NOOK_TEST_PARENT=1 "$0" & wait) & wait`, false},
		"pid 1 on terminal": {`NOOK_TEST_PARENT=1 exec "$0"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, way string) {
				var tty *os.File
				if tc.tty {
					tty = terminal(t)
				}
				c := startOn(t, tty, tc.script)
				c.noFreezer = way == BySignals
				for range 20 {
					if err := errors.Join(c.Pause(), c.Resume()); err != nil {
						t.Fatal(err)
					}
				}
				// Nobody is stopped any more, so what could be seen was seen.
				for _, p := range c.list(t) {
					if p.CommandLine() == "sleep 1001" {
						return
					}
				}
				t.Errorf("got %+v, want the parent not to have seen its child stopped", c.list(t))
			})
		})
	}
}

// terminal opens the slave side of a pseudo-terminal (pts(4)).
func terminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = master.Close(), slave.Close() })
	return slave
}

// TestGivesUp: a container that can't be stopped in time goes on as a whole.
func TestGivesUp(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	if !testenv.AsMonitor(t) {
		return
	}
	c := start(t, `sleep 1001 & echo ready; wait`)
	c.noFreezer, c.passes = true, 1 // one that sends the signals, none that finds them obeyed
	if err := c.Pause(); !errors.Is(err, errStill) || c.How() != "" {
		t.Fatalf("got %v, %q, want %v", err, c.How(), errStill)
	}
	until(t, "none is stopped", func() bool { return !c.anyStopped(t) })
}

// TestKilledMonitorLeavesNothing: frozen processes end with it.
func TestKilledMonitorLeavesNothing(t *testing.T) {
	eachPausedAndKilled(t, func(t *testing.T, way string) {
		c := start(t, happy)
		c.noFreezer = way == BySignals
		if err := c.Pause(); err != nil {
			t.Fatal(err)
		}
		for pid := range c.list(t) {
			fmt.Println("holds", pid)
		}
		fmt.Println("paused by", c.How())
		select {} // until it is killed
	})
}

// eachPausedAndKilled runs monitor as a monitor, and kills it when it says
// that its container is paused.
func eachPausedAndKilled(t *testing.T, monitor func(t *testing.T, way string)) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	for _, way := range []string{ByFreezer, BySignals} {
		t.Run(way, func(t *testing.T) {
			if testenv.IsMonitor() {
				monitor(t, way)
			}
			testenv.Need(t, "userns", testenv.UserNS)
			if way == ByFreezer {
				testenv.Need(t, "freezer", freezer)
			}
			cmd := testenv.MonitorCommand(t.Context(), t.Name())
			cmd.Env = append(cmd.Env, "TMPDIR="+t.TempDir()) // it removes nothing itself
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var held []int
			by := ""
			for s := bufio.NewScanner(out); by == "" && s.Scan(); {
				_, _ = fmt.Sscanf(s.Text(), "paused by %s", &by)
				var pid int
				if n, _ := fmt.Sscanf(s.Text(), "holds %d", &pid); n == 1 {
					fd, err := unix.PidfdOpen(pid, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer unix.Close(fd)
					held = append(held, fd)
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if by != way || len(held) < 6 {
				t.Errorf("%d processes paused by %q, want six at least, by %q", len(held), by, way)
			}
			for _, fd := range held {
				if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil && !errors.Is(err, unix.EINTR) {
					t.Error(err)
				}
			}
			Sweep()
			if left, _ := filepath.Glob("/sys/fs/cgroup/{,unified/}" + prefix + "*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}
