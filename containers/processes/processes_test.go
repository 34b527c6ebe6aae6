package processes

import (
	"errors"
	"fmt"
	"io/fs"
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

	"nook/internal/testenv"
)

// put writes one process of a directory that plays /proc.
func put(t *testing.T, root string, pid, parent int, ids string) {
	t.Helper()
	dir := filepath.Join(root, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"stat":    fmt.Sprintf("%d (p)%s", pid, strings.Replace(tail, "7852", strconv.Itoa(parent), 1)),
		"status":  "Uid:\t1\t2\t3\t4\nNSpid:\t" + ids + "\n",
		"cmdline": "sh\x00-c\x00sleep \x1b[1m\x00",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func pids(list []Process) []int {
	var out []int
	for _, p := range list {
		out = append(out, p.Pid)
	}
	return out
}

// TestBelow: the container's are told from the monitor's helpers, wherever
// they hang.
func TestBelow(t *testing.T) {
	root := t.TempDir()
	put(t, root, 1, 0, "1")
	put(t, root, 100, 1, "100 1")                                 // the monitor
	put(t, root, 50, 100, "50 2 1")                               // its container, whose pid is lower
	put(t, root, 101, 100, "101 3")                               // a helper
	put(t, root, 102, 101, "102 4")                               // and its child
	put(t, root, 103, 100, "103 5 9")                             // exec'ed into the container
	put(t, root, 40, 50, "40 6 2")                                // a child
	put(t, root, 200, 40, "200 7 3 1")                            // in a pid namespace of the container's own
	put(t, root, 300, 1, "300 1")                                 // another monitor
	put(t, root, 301, 300, "301 2 1")                             // and its container
	put(t, root, 104, 101, "104 8 10")                            // the container's, below a helper
	for _, name := range []string{"self", "meminfo", "4x", "7"} { // 7 ended: no stat
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, err := takeAt(root)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.Below(100)
	if err != nil {
		t.Fatal(err)
	}
	got := pids(list)
	slices.Sort(got)
	if want := []int{40, 50, 103, 104, 200}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	at := func(pid int) int { return slices.Index(pids(list), pid) }
	if at(50) > at(40) || at(40) > at(200) {
		t.Errorf("got %v, want parents before their children", pids(list))
	}
	if p := list[at(200)]; p.Outer != 7 || p.Inner != 3 || p.UID != 2 {
		t.Errorf("got %+v, want the pids 7 and 3 and the uid 2", p)
	}
	if got, want := list[at(50)].CommandLine(), "sh -c sleep ?[1m"; got != want {
		t.Errorf("got command line %q, want %q", got, want)
	}
	if _, err := s.Below(7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a monitor that ended: got %v, want %v", err, fs.ErrNotExist)
	}
}

// TestStopped: of the states of its threads. A thread is a directory as a
// process is.
func TestStopped(t *testing.T) {
	for _, tc := range []struct {
		states      string
		asked, want bool
	}{
		{"T", false, true}, {"t", false, true}, {"Z", false, true}, {"X", false, true},
		{"R", false, false}, {"S", true, false}, {"I", true, false}, {"D", false, false}, {"D", true, true},
		{"TT", false, true}, {"TR", false, false}, {"ZR", false, false}, {"ZT", false, true},
		{"TD", false, false}, {"TD", true, true}, {"RT", true, false},
	} {
		p := Process{State: tc.states[0], Threads: len(tc.states), dir: t.TempDir()}
		for i, state := range tc.states {
			put(t, p.dir+"/task", i+1, 0, "")
			stat := fmt.Sprintf("%d (p)%s", i+1, strings.Replace(tail, "S", string(state), 1))
			if err := os.WriteFile(fmt.Sprintf("%s/task/%d/stat", p.dir, i+1), []byte(stat), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := p.Stopped(tc.asked); got != tc.want {
			t.Errorf("%s, asked %v: got %v, want %v", tc.states, tc.asked, got, tc.want)
		}
	}
}

// TestOrphanIsFound: its parent ended after it was looked at, and the one it
// has now is younger than the pass.
func TestOrphanIsFound(t *testing.T) {
	root := t.TempDir()
	put(t, root, 100, 0, "100 1")
	put(t, root, 101, 100, "101 2 1")
	s, err := takeAt(root)
	if err != nil {
		t.Fatal(err)
	}
	s.processes[103] = Process{Pid: 103, Parent: 99} // as it was
	s.processes[104] = Process{Pid: 104, Parent: 99} // ended by now
	put(t, root, 102, 101, "102 3 2")                // born since
	put(t, root, 103, 102, "103 4 3")                // as it is
	s.mend()
	list, err := s.Below(100)
	if got, want := pids(list), []int{101, 102, 103}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// TestListIsTheContainer on this host, with names that look like fields.
func TestListIsTheContainer(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	if !testenv.AsMonitor(t) {
		return
	}
	start := func(command *exec.Cmd) *os.Process {
		t.Helper()
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		return command.Process
	}
	entrypoint := exec.Command(testenv.Busybox, "sh", "-c", `sh -c 'echo "a) R 1 (b" >/proc/self/comm; sleep 1001 & wait' & wait`)
	entrypoint.Env = []string{"PATH=" + binDir(t)}
	entrypoint.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	pid1 := start(entrypoint)
	helper := start(exec.Command(testenv.Busybox, "sleep", "1002"))
	another := startIn(t, pid1.Pid, exec.Command(testenv.Busybox, "sleep", "1003"))
	self, err := os.Readlink("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := strconv.Atoi(self)
	if err != nil {
		t.Fatal(err)
	}
	var list []Process
	// Of four the odd one's child comes last.
	for complete := false; !complete && t.Context().Err() == nil; {
		if list, err = List(monitor); err != nil {
			t.Fatal(err)
		}
		complete = slices.ContainsFunc(list, func(p Process) bool { return p.Name == "sleep" && p.Inner > 2 && p.Parent != monitor })
	}
	outer := map[int]Process{}
	for _, p := range list {
		outer[p.Outer] = p
	}
	odd := slices.ContainsFunc(list, func(p Process) bool { return p.Name == "a) R 1 (b\n" })
	if len(list) != 4 || !odd {
		t.Errorf("got %+v, want 4 processes, one of them with the odd name", list)
	}
	if p := outer[pid1.Pid]; p.Inner != 1 || p.Parent != monitor {
		t.Errorf("pid 1: got %+v, want it as %d's child with the number 1", p, monitor)
	}
	if p := outer[another.Pid]; p.Parent != monitor || p.Inner < 2 || p.CommandLine() == "" {
		t.Errorf("exec'ed: got %+v, want a child of %d", p, monitor)
	}
	if _, there := outer[helper.Pid]; there {
		t.Error("got the monitor's helper, want the container's processes alone")
	}
	p := outer[pid1.Pid]
	if _, err := p.IO(); err != nil {
		t.Error(err)
	}
	if p.Share() == 0 || p.Share() > p.Resident || p.Resident == 0 || p.Size < p.Resident {
		t.Errorf("got %d bytes of share, %d in memory, %d in all: want them to grow", p.Share(), p.Resident, p.Size)
	}
	host, err := ReadHost()
	if err != nil || p.Age(host) > host.Uptime || host.Memory < p.Resident {
		t.Errorf("got %+v of age %s, %v", host, p.Age(host), err)
	}
}

// binDir is a directory with the applets that the tests' scripts call.
func binDir(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"sh", "sleep"} {
		if err := os.Symlink(testenv.Busybox, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startIn starts a command in the pid namespace of a process, as exec does.
func startIn(t *testing.T, pid int, cmd *exec.Cmd) *os.Process {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Setns(fd, unix.CLONE_NEWPID)
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return cmd.Process
}
