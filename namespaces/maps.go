package namespaces

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
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
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return newidmap(ctx, "newuidmap", pid, ids.UIDs) })
	g.Go(func() error { return newidmap(ctx, "newgidmap", pid, ids.GIDs) })
	return g.Wait()
}

func newidmap(ctx context.Context, tool string, pid int, ranges []Range) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		args = append(args, fmt.Sprint(r.Inside), fmt.Sprint(r.Outside), fmt.Sprint(r.Count))
	}
	out, err := exec.CommandContext(ctx, tool, args...).CombinedOutput()
	if err != nil {
		return hint.Errorf("is "+tool+" setuid root, and do /etc/subuid and /etc/subgid hold? --ids single needs neither",
			"%s: %w: %s", tool, err, strings.TrimSpace(string(out)))
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
