package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The kinds of relatives, as they are chosen from.
const (
	kindCommand = "command"
	kindStage   = "stage"
	kindMonitor = "monitor"
	kindAgain   = "nook-again"
	kindFirst   = "pid 1"
	kindInside  = "another inside"
	kindHelper  = "helper" // what becomes a stage, newuidmap
)

// relative is a process below this one.
type relative struct {
	pid, parent int
	kind, what  string
}

func (r relative) String() string { return fmt.Sprintf("%s %d %q", r.kind, r.pid, r.what) }

// family are the processes below this one, as it is a subreaper.
type family struct {
	command int        // the one that exec.Cmd waits for
	spared  []relative // with their children
}

// list finds all. The dead among our own children are reaped.
func (f *family) list() []relative {
	var out []relative
	for below := children(os.Getpid()); len(below) > 0; below = below[1:] {
		if r, ok := f.read(fmt.Sprint("/proc/", below[0])); ok {
			out = append(out, r)
			below = append(below, children(r.pid)...)
		}
	}
	slices.SortFunc(out, func(a, b relative) int { return a.pid - b.pid })
	return out
}

// children are those of all threads (proc_pid_task(5), children). It is quick:
// a look at every process would be over long after the moment.
func children(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// others are all but the spared.
func (f *family) others() []relative {
	list := f.list()
	all := make(map[int]relative)
	for _, r := range list {
		all[r.pid] = r
	}
	return slices.DeleteFunc(list, func(r relative) bool {
		return slices.ContainsFunc(f.spared, func(s relative) bool { return s.pid == r.pid || descends(all, r, s.pid) })
	})
}

func descends(all map[int]relative, r relative, from int) bool {
	for range len(all) + 1 {
		if r.parent == from {
			return true
		}
		var ok bool
		if r, ok = all[r.parent]; !ok {
			return false
		}
	}
	return false
}

// read tells of a process that isn't dead.
func (f *family) read(dir string) (relative, bool) {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return relative{}, false
	}
	field := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		field[name] = strings.Fields(value)
	}
	r := relative{}
	r.pid, _ = strconv.Atoi(filepath.Base(dir))
	if len(field["PPid"]) != 1 || len(field["State"]) == 0 {
		return r, false
	}
	r.parent, _ = strconv.Atoi(field["PPid"][0])
	if state := field["State"][0]; state == "Z" || state == "X" {
		// A thread of it that waits for the disk holds files and locks still.
		ended(r.pid, patience)
		if r.parent == os.Getpid() && r.pid != f.command {
			var ws unix.WaitStatus
			_, _ = unix.Wait4(r.pid, &ws, unix.WNOHANG, nil)
		}
		return r, false
	}
	cmdline, _ := os.ReadFile(dir + "/cmdline")
	args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	r.what = strings.Join(args, " ")
	ids := field["NSpid"]
	first := len(ids) > 1 && ids[len(ids)-1] == "1"
	switch depth := len(ids) - f.depth(); {
	case args[0] == "nook-monitor", depth == 1 && first:
		r.kind = kindMonitor
	case args[0] == "nook-again":
		r.kind = kindAgain
	case args[0] == "nook-stage":
		r.kind = kindStage
	case depth == 2 && first:
		r.kind = kindFirst
	case depth > 0:
		r.kind = kindInside
	case r.pid == f.command:
		r.kind = kindCommand
	default:
		r.kind = kindHelper
	}
	return r, true
}

// depth is how many pid namespaces we are in.
func (f *family) depth() int {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(ids))
		}
	}
	return 1
}

// More than one process at once, as a choice beside the kinds.
const (
	chooseGroup = "the command's group" // as a terminal's Ctrl-\ does
	chooseAll   = "all"                 // as the end of a session does
)

// strike kills a process, or a few, of those that run now.
func (s *scene) strike(cmd *exec.Cmd, random *rand.Rand) *outcome {
	s.family.command = cmd.Process.Pid
	there := s.family.others()
	o := &outcome{}
	var kinds []string
	for _, r := range there {
		o.alive = append(o.alive, r.String())
		if r.kind == kindMonitor {
			for _, arg := range strings.Fields(r.what) {
				s.seen[arg] = true
			}
		}
		if !slices.Contains(kinds, r.kind) {
			kinds = append(kinds, r.kind)
		}
	}
	if len(kinds) == 0 {
		return nil
	}
	slices.Sort(kinds)
	kind := append(kinds, chooseAll, chooseGroup)[random.IntN(len(kinds)+2)]
	if kind == chooseGroup {
		if unix.Kill(-cmd.Process.Pid, unix.SIGKILL) != nil {
			return nil
		}
		o.hits = []string{kind}
		return o
	}
	candidates := slices.DeleteFunc(there, func(r relative) bool { return kind != chooseAll && r.kind != kind })
	if kind != chooseAll {
		candidates = candidates[random.IntN(len(candidates)):][:1]
	}
	for _, r := range candidates {
		// newuidmap is root's, and the dead are nobody's.
		if unix.Kill(r.pid, unix.SIGKILL) == nil {
			o.hits = append(o.hits, r.kind)
		}
	}
	if o.hits == nil {
		return nil
	}
	return o
}
