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
	if ids.Mode == Root {
		for file, ranges := range map[string][]Range{"uid_map": ids.UIDs, "gid_map": ids.GIDs} {
			path := fmt.Sprintf("/proc/%d/%s", pid, file)
			if err := os.WriteFile(path, []byte(FormatMap(ranges)), 0); err != nil {
				return fmt.Errorf("write the id map: %w", err)
			}
		}
		return nil
	}
	// Both run at once; neither has more to say than a line on stderr.
	said, say, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer said.Close()
	uid, uidErr := startIDMap("newuidmap", pid, ids.UIDs, say)
	gid, gidErr := startIDMap("newgidmap", pid, ids.GIDs, say)
	_ = say.Close()
	stop := context.AfterFunc(ctx, func() {
		for _, p := range []*os.Process{uid, gid} {
			if p != nil {
				_ = p.Kill()
			}
		}
	})
	defer stop()
	err = errors.Join(uidErr, gidErr, waitIDMap("newuidmap", uid), waitIDMap("newgidmap", gid))
	if err == nil {
		return nil
	}
	text, _ := io.ReadAll(said)
	return hint.Errorf("are newuidmap and newgidmap setuid root, and do /etc/subuid and /etc/subgid hold? --ids single needs neither",
		"write the id maps: %w: %s", err, strings.TrimSpace(string(text)))
}

func startIDMap(tool string, pid int, ranges []Range, stderr *os.File) (*os.Process, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return nil, err
	}
	args := []string{tool, strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, fmt.Sprint(r.Inside), fmt.Sprint(r.Outside), fmt.Sprint(r.Count))
	}
	p, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{nil, nil, stderr}})
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", tool, err)
	}
	return p, nil
}

// waitIDMap waits for a tool that was started.
func waitIDMap(tool string, p *os.Process) error {
	if p == nil {
		return nil
	}
	state, err := p.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", tool, err)
	}
	if !state.Success() {
		return fmt.Errorf("%s: %s", tool, state)
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

// Explain gives an error of clone(2) with CLONE_NEWUSER its usual cause.
func Explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		limit := lowestLimit()
		return hint.Wrap(fmt.Errorf("create namespaces: %w: the limit %s is reached", err, limit),
			"as root: sysctl -w "+limit+"=15000; an outer container may have a limit of its own")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return hint.Wrap(fmt.Errorf("create a user namespace: %w", err),
			"this host forbids user namespaces to you: see kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, and the outer container's seccomp profile")
	case errors.Is(err, unix.EAGAIN):
		return hint.Wrap(fmt.Errorf("create a process: %w", err), "the limit of processes is reached: see ulimit -u")
	}
	return fmt.Errorf("create namespaces: %w", err)
}
