package namespaces

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"nook/internal/hint"
	"nook/internal/raw"
)

// SelfMapped tells whether a process in a new user namespace can write these
// maps itself: one id, its own, with setgroups denied (user_namespaces(7)).
func (ids IDs) SelfMapped() bool { return ids.Mode == Single }

// MapSelf adds the writing of the maps by the process itself.
func (ids IDs) MapSelf(p *raw.Program) {
	write := func(file, text string) {
		fd := p.Register()
		p.Call("open "+file, unix.SYS_OPENAT, unix.AT_FDCWD, "/proc/self/"+file, unix.O_WRONLY|unix.O_CLOEXEC, 0).SaveTo(fd)
		p.Call("write "+file, unix.SYS_WRITE, fd, text, len(text))
		p.Call("close "+file, unix.SYS_CLOSE, fd)
	}
	write("setgroups", "deny")
	write("uid_map", FormatMap(ids.UIDs))
	write("gid_map", FormatMap(ids.GIDs))
}

// WriteMaps writes the maps of a process in a new user namespace from
// outside: as root directly, otherwise by newuidmap(1) and newgidmap(1), both
// at once.
func (ids IDs) WriteMaps(ctx context.Context, pid int) error {
	return ids.StartMaps(pid).Wait(ctx)
}

// Maps is the writing of a process's id maps, on its way.
type Maps struct {
	err   error
	said  *os.File
	mu    sync.Mutex // held while a tool is reaped or killed
	tools []*tool
}

// tool is a running newuidmap or newgidmap; pid is 0 when it was reaped, program
// is nil when another started it.
type tool struct {
	name    string
	pid     int
	program *raw.Program
}

// StartMaps is WriteMaps without the wait.
func (ids IDs) StartMaps(pid int) *Maps {
	m := &Maps{}
	if ids.Mode == Root {
		for file, ranges := range map[string][]Range{"uid_map": ids.UIDs, "gid_map": ids.GIDs} {
			path := fmt.Sprintf("/proc/%d/%s", pid, file)
			if err := os.WriteFile(path, []byte(FormatMap(ranges)), 0); err != nil {
				m.err = fmt.Errorf("write the id map: %w", err)
			}
		}
		return m
	}
	// Both run at once; neither has more to say than a line on stderr.
	said, say, err := os.Pipe()
	if err != nil {
		m.err = fmt.Errorf("pipe: %w", err)
		return m
	}
	defer say.Close()
	m.said = said
	for _, t := range ids.Tools(pid) {
		m.err = errors.Join(m.err, m.start(t[0], t[1:], say))
	}
	return m
}

// AdoptMaps is StartMaps for tools that run already.
func (ids IDs) AdoptMaps(a *raw.Ahead) *Maps {
	m := &Maps{said: os.NewFile(uintptr(a.Said), "tools")}
	for _, t := range a.Tools {
		m.tools = append(m.tools, &tool{name: t.Args[0], pid: t.Pid})
	}
	return m
}

// Tools are the command lines that write the maps of a process: each a path and
// its arguments, from the name on. nil: it takes none.
func (ids IDs) Tools(pid int) [][]string {
	if ids.Mode != Mapped {
		return nil
	}
	list := [][]string{{"newuidmap"}, {"newgidmap"}}
	for i, ranges := range [][]Range{ids.UIDs, ids.GIDs} {
		name := list[i][0]
		path, err := exec.LookPath(name)
		if err != nil {
			path = name // that it is gone is told when it is started
		}
		line := []string{path, name, strconv.Itoa(pid)}
		for _, r := range ranges {
			for _, n := range []uint32{r.Inside, r.Outside, r.Count} {
				line = append(line, strconv.FormatUint(uint64(n), 10))
			}
		}
		list[i] = line
	}
	return list
}

// start starts a tool without an environment: it needs none, and a locale
// costs it more files than all the rest. It is a raw child, for which nobody
// waits until it is executed, as a vfork would.
func (m *Maps) start(path string, args []string, stderr *os.File) error {
	const size = 64 << 10
	p := raw.New(size)
	p.Share()
	p.Call("place its stderr", unix.SYS_DUP3, int(stderr.Fd()), 2, 0)
	p.Exec("exec "+args[0], path, p.Strings(args), p.Strings(nil))
	p.Fail("exec " + args[0])
	const none = -1 // its status tells enough
	child, err := p.Start(0, none)
	if err != nil {
		p.Close()
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	m.tools = append(m.tools, &tool{args[0], child, p})
	return nil
}

// Wait waits until the maps are written. A ctx that ends ends the tools.
func (m *Maps) Wait(ctx context.Context) error {
	if m.said != nil {
		defer m.said.Close()
	}
	stop := context.AfterFunc(ctx, m.kill)
	defer stop()
	err := m.err
	for _, t := range m.tools {
		err = errors.Join(err, m.wait(t))
	}
	if err == nil || m.said == nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text, _ := io.ReadAll(m.said)
	return hint.Errorf("are newuidmap and newgidmap setuid root, and do /etc/subuid and /etc/subgid hold? --ids single needs neither",
		"write the id maps: %w: %s", err, strings.TrimSpace(string(text)))
}

func (m *Maps) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.tools {
		if t.pid != 0 {
			_ = unix.Kill(t.pid, unix.SIGKILL)
		}
	}
}

func (m *Maps) wait(t *tool) error {
	for {
		err := unix.Waitid(unix.P_PID, t.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var ws unix.WaitStatus
	_, err := unix.Wait4(t.pid, &ws, 0, nil)
	t.pid = 0
	if t.program != nil {
		t.program.Close()
	}
	switch {
	case err != nil:
		return fmt.Errorf("wait for %s: %w", t.name, err)
	case ws.Signaled():
		return fmt.Errorf("%s: signal %d", t.name, ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("%s: exit status %d", t.name, ws.ExitStatus())
	}
	return nil
}

// lowestLimit names the sysctl that allows fewest namespaces, which is the
// likeliest to be used up (namespaces(7), The /proc/sys/user directory).
func lowestLimit() string {
	name, low := "user.max_user_namespaces", uint64(1<<63)
	for _, kind := range []string{"user", "pid", "mnt", "uts", "ipc", "net", "cgroup"} {
		data, err := os.ReadFile("/proc/sys/user/max_" + kind + "_namespaces")
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err == nil && n < low {
			name, low = "user.max_"+kind+"_namespaces", n
		}
	}
	return name
}

// chrooted tells whether our root is no mount's, as in most chroots: one that is
// a mount can't be told from a root that was pivoted to.
func chrooted() bool {
	list, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter("/"))
	return err == nil && len(list) == 0
}

// Explain gives an error of clone(2) with CLONE_NEWUSER its usual cause.
func Explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		limit := lowestLimit()
		return hint.Wrap(fmt.Errorf("create namespaces: %w: the limit %s is reached", err, limit),
			"as root: sysctl -w "+limit+"=15000; an outer container may have a limit of its own")
	case errors.Is(err, unix.EPERM) && chrooted():
		return hint.Wrap(fmt.Errorf("create a user namespace: %w: this is a chroot, in which the kernel makes none (user_namespaces(7))", err),
			"enter the tree by pivot_root, as bwrap --bind TREE / and systemd-nspawn do")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return hint.Wrap(fmt.Errorf("create a user namespace: %w", err),
			"this host forbids user namespaces to you: see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, and the outer container's seccomp profile")
	case errors.Is(err, unix.EAGAIN):
		return hint.Wrap(fmt.Errorf("create a process: %w", err), "the limit of processes is reached: see ulimit -u")
	}
	return fmt.Errorf("create namespaces: %w", err)
}
