// Package processes finds the processes of a container in /proc.
//
//	list, err := processes.List(state.Monitor.Pid)
//	for _, p := range list {
//		fmt.Println(p.Pid, p.CommandLine())
//	}
//
// They are found from the container's monitor downwards, as everything of a
// container descends from it. Not all that descends from it is the
// container's: the monitor has short helpers of its own. The container's live
// one pid namespace deeper:
//
//	monitor        NSpid: 4711 1
//	  helper       NSpid: 4712 2        not the container's
//	  pid 1        NSpid: 4713 3 1
//	    child      NSpid: 4714 4 2
//	  exec's       NSpid: 4715 5 3      beside pid 1, not below it
//
// The first number is counted as /proc counts, which is the host's for the
// commands and for the monitor alike; the second as the monitor's system calls
// count. A /proc that hides other users' processes (hidepid=2) hides those of
// a container that run as sub-ids, too, from a command; not from the monitor.
package processes

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is one process as it was when it was looked at. Times are in clock
// ticks, 100 a second on every architecture that nook runs on (time(7)).
type Process struct {
	Pid    int // as /proc counts
	Parent int // as /proc counts
	Outer  int // as the container's monitor counts, for kill(2) there
	Inner  int // as the container counts: 1 is its first process

	Name     string // at most 15 bytes, chosen by the process itself
	State    byte   // proc_pid_stat(5): R, S, D, Z, T and rarer ones
	UID      int    // the effective one, as the reader's user namespace counts
	Group    int    // process group
	Session  int
	TTY      int // device number of the terminal, 0: none
	Front    int // the terminal's foreground group, -1: none
	Nice     int
	Threads  int
	Start    uint64 // ticks after boot
	UserTime uint64 // ticks, of all its threads
	SysTime  uint64
	// ChildTime is the time of children that were waited for, and of theirs.
	ChildTime uint64
	Size      uint64 // bytes of address space
	Resident  uint64 // bytes in memory, those it shares included

	dir string // /proc/PID
}

// TicksPerSecond is USER_HZ.
const TicksPerSecond = 100

// Snapshot is all of /proc from one pass over it. A pass takes about 10 µs a
// process of the host: who looks at several containers makes one for all.
type Snapshot struct {
	root      string
	processes map[int]Process
}

// List is a snapshot's Below.
func List(monitor int) ([]Process, error) {
	s, err := Take()
	if err != nil {
		return nil, err
	}
	return s.Below(monitor)
}

// Take reads /proc/PID/stat of every process.
func Take() (*Snapshot, error) { return takeAt("/proc") }

func takeAt(root string) (*Snapshot, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	s := &Snapshot{root, make(map[int]Process, len(names))}
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			s.look(pid)
		}
	}
	s.mend()
	return s, nil
}

// look reads a process, or forgets it when it is gone.
func (s *Snapshot) look(pid int) bool {
	dir := filepath.Join(s.root, strconv.Itoa(pid))
	var buf [1024]byte
	p, ok := parseStat(readSome(dir+"/stat", buf[:]))
	if !ok {
		delete(s.processes, pid)
		return false
	}
	p.dir = dir
	s.processes[pid] = p
	return true
}

// mend looks again at processes whose parent isn't there: it ended during the
// pass, and they have another by now, who may be younger than the pass.
func (s *Snapshot) mend() {
	const rounds = 10 // each follows one more generation that ended meanwhile
	for range rounds {
		changed := false
		for pid, p := range s.processes {
			if _, there := s.processes[p.Parent]; p.Parent == 0 || there {
				continue
			}
			if !s.look(pid) {
				changed = true
				continue
			}
			parent := s.processes[pid].Parent
			changed = s.look(parent) || changed
		}
		if !changed {
			return
		}
	}
}

// Below lists the processes of the container of a monitor, parents before
// their children. It is an error when the monitor isn't there; what ends
// meanwhile is left out.
func (s *Snapshot) Below(monitor int) ([]Process, error) {
	_, ids, err := s.status(monitor)
	if err != nil {
		return nil, fmt.Errorf("list the processes below %d: %w", monitor, err)
	}
	depth := len(ids)
	children := make(map[int][]int)
	for pid, p := range s.processes {
		children[p.Parent] = append(children[p.Parent], pid)
	}
	var out []Process
	seen := map[int]bool{monitor: true} // a pid may be used again during a pass
	for next := children[monitor]; len(next) > 0; {
		var below []int
		for _, pid := range next {
			if seen[pid] {
				continue
			}
			seen[pid] = true
			below = append(below, children[pid]...)
			uid, ids, err := s.status(pid)
			if err != nil || len(ids) <= depth {
				continue
			}
			p := s.processes[pid]
			p.UID, p.Outer, p.Inner = uid, ids[depth-1], ids[depth]
			out = append(out, p)
		}
		next = below
	}
	return out, nil
}

func (s *Snapshot) status(pid int) (uid int, ids []int, err error) {
	name := filepath.Join(s.root, strconv.Itoa(pid), "status")
	// Its first lines are of bounded length, but for the groups (65,536).
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, nil, err
	}
	uid, ids, ok := parseStatus(text)
	if !ok {
		return 0, nil, fmt.Errorf("read %s: no Uid or NSpid", name)
	}
	return uid, ids, nil
}

// Stopped tells whether no thread of the process runs or will run code of its
// own before it is sent SIGCONT. asked: it was sent SIGSTOP; then one that the
// kernel won't interrupt (D) stops before it is back in its program.
func (p Process) Stopped(asked bool) bool {
	if p.Threads <= 1 {
		return stoppedState(p.State, asked)
	}
	// The state is the first thread's alone, which may have ended (Z).
	tasks, err := filepath.Glob(p.dir + "/task/[0-9]*/stat")
	if err != nil {
		return false
	}
	for _, task := range tasks {
		var buf [1024]byte
		if t, ok := parseStat(readSome(task, buf[:])); ok && !stoppedState(t.State, asked) {
			return false
		}
	}
	return true
}

// stoppedState: T is stopped, t stopped for a tracer, Z and X have ended.
func stoppedState(state byte, asked bool) bool {
	switch state {
	case 'T', 't', 'Z', 'X', 'x':
		return true
	case 'D':
		return asked
	}
	return false
}

// Ended tells whether it only waits to be reaped.
func (p Process) Ended() bool { return p.State == 'Z' && p.Threads <= 1 || p.State == 'X' }

// readSome reads the beginning of a small file of procfs, by system calls
// alone: os.ReadFile takes three times as long, for each process of the host.
func readSome(path string, buf []byte) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}
