package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host is the part of the machine that one test has to itself.
type host struct {
	dir  string // everything below it is the test's
	root string // nook's data root
	bin  string
	ids  string

	// keeps says that the test leaves containers on purpose.
	keeps bool
}

func newHost(dir, bin string, m mode) *host {
	return &host{dir: dir, root: filepath.Join(dir, "root"), bin: bin, ids: m.ids}
}

// make makes the directories that a login would have made.
func (h *host) make() error {
	for _, d := range []string{"home", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(h.dir, d), 0o700); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(h.dir, "registries.conf"), []byte(noRegistries), 0o600)
}

// env is the environment of nook in this test.
func (h *host) env() []string {
	return []string{
		"PATH=" + h.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + filepath.Join(h.dir, "home"),
		"TMPDIR=" + filepath.Join(h.dir, "tmp"),
		"XDG_RUNTIME_DIR=" + filepath.Join(h.dir, "run"),
		"NOOK_ROOT=" + h.root,
		"NOOK_REGISTRIES=" + filepath.Join(h.dir, "registries.conf"),
		"NOOK_IDS=" + h.ids,
		"NOOK_LINGER=0", // helpers that serve the next command end with this one
		"LANG=C.UTF-8",
	}
}

// patience is how long a process of ours may take to end once the test is over.
// Its end is waited for; this only bounds a failure.
const patience = 2 * time.Minute

// left returns what the test left behind, a line each: processes, mounts,
// half-made things and, unless it keeps them, containers. It waits that long
// for the processes to end.
func (h *host) left(wait time.Duration) []string {
	var out []string
	late := time.Now().Add(wait)
	for _, p := range h.processes() {
		if !ended(p.pid, time.Until(late)) {
			out = append(out, fmt.Sprintf("process %d: %s", p.pid, p.what))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return append(out, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.dir) {
			out = append(out, "mount: "+strings.TrimSpace(line))
		}
	}
	if !h.keeps {
		out = append(out, entries(filepath.Join(h.root, "containers"))...)
	}
	out = append(out, entries(filepath.Join(h.dir, "tmp"))...)
	return append(out, h.halfMade()...)
}

// end kills what left found: a test that failed leaves no containers running.
func (h *host) end() {
	for _, p := range h.processes() {
		_ = unix.Kill(p.pid, unix.SIGKILL)
	}
}

// entries lists a directory, which may be missing, but for lock files and what
// nook keeps for the next container.
func entries(dir string) []string {
	list, _ := os.ReadDir(dir)
	var out []string
	for _, e := range list {
		switch {
		case strings.HasSuffix(e.Name(), "lock") || e.Name() == ".skeleton":
		case e.Name() == "names":
			out = append(out, entries(filepath.Join(dir, "names"))...)
		default:
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// halfMade finds what lies in staging directories of the data root, and
// temporary files.
func (h *host) halfMade() []string {
	var out []string
	for _, pattern := range []string{"*/.staging", ".staging"} {
		dirs, _ := filepath.Glob(filepath.Join(h.root, pattern))
		for _, d := range dirs {
			out = append(out, entries(d)...)
		}
	}
	for _, pattern := range []string{"*", "*/*", "*/*/*"} {
		names, _ := filepath.Glob(filepath.Join(h.root, pattern))
		for _, n := range names {
			if base := filepath.Base(n); strings.Contains(base, ".tmp") || strings.HasPrefix(base, "tmp") {
				out = append(out, "half made: "+n)
			}
		}
	}
	return out
}

type process struct {
	pid  int
	what string
}

// processes finds those of this test: whose environment, command line, open
// files or mounts name its directory. Zombies count as ended.
func (h *host) processes() []process {
	self := os.Getpid()
	var out []process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == self || pid == 1 {
			continue
		}
		if why := h.owns(dir); why != "" {
			cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
			out = append(out, process{pid, fmt.Sprintf("%q (%s)", bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}), why)})
		}
	}
	return out
}

// owns says by what a process is the test's, or "". What can't be read of a
// process says nothing.
func (h *host) owns(dir string) string {
	for _, name := range []string{"cmdline", "environ", "mountinfo"} {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		if h.names(string(text)) {
			return name
		}
	}
	links, _ := filepath.Glob(filepath.Join(dir, "fd/*"))
	for _, l := range append(links, filepath.Join(dir, "cwd"), filepath.Join(dir, "root")) {
		if target, _ := os.Readlink(l); h.names(target) {
			return strings.TrimPrefix(l, dir+"/") + " is " + target
		}
	}
	return ""
}

// names tells whether a text names the test's directory, and not one whose name
// only begins as its does.
func (h *host) names(text string) bool {
	for {
		_, rest, found := strings.Cut(text, h.dir)
		if !found {
			return false
		}
		if rest == "" || !strings.ContainsAny(rest[:1], "-.0123456789abcdefghijklmnopqrstuvwxyz") {
			return true
		}
		text = rest
	}
}

// ended waits for a process to end.
func ended(pid int, within time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err == unix.ESRCH
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(within)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
