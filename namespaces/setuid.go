package namespaces

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// newuidmap(1) and newgidmap(1) work where their file gives them privilege and
// nothing takes it away again. All of that can be seen beforehand, so that
// auto takes the single mode instead of an error later.

const installUidmap = "install Debian's package uidmap, or use --ids single"

// helpersWork tells why the helpers would not work, or nil.
func helpersWork() error {
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			return hint.Errorf(installUidmap, "%s isn't in PATH", tool)
		}
		if err := privileged(path); err != nil {
			return hint.Wrap(fmt.Errorf("%s can't map ids: %w", path, err), installUidmap)
		}
	}
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && on == 1 {
		return hint.Errorf("start nook without no_new_privs (docker's --security-opt no-new-privileges), or use --ids single",
			"newuidmap can't map ids: no_new_privs is set")
	}
	return nil
}

// privileged tells whether executing the file gives root's privilege, by its
// set-user-ID bit or by file capabilities (execve(2), capabilities(7)).
func privileged(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err == nil && fs.Flags&unix.ST_NOSUID != 0 {
		return errors.New("it lies on a file system mounted nosuid")
	}
	if st.Mode&unix.S_ISUID != 0 {
		if st.Uid != 0 {
			return fmt.Errorf("it is set-user-ID of uid %d, not of root", st.Uid)
		}
		return nil
	}
	if n, err := unix.Getxattr(path, "security.capability", nil); err == nil && n > 0 {
		return nil
	}
	return errors.New("it is not set-user-ID root")
}

// available tells whether the ranges exist in our own user namespace: inside
// of a container, /etc/subuid may promise what the outer map doesn't have.
func available(file string, ranges []Range) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return noProc(err)
	}
	have, err := ParseMap(string(data))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, r := range ranges {
		if !within(r, have) {
			return hint.Errorf("the user namespace around nook must have them, or use --ids single",
				"ids %d to %d don't exist in this user namespace (%s)", r.Outside, uint64(r.Outside)+uint64(r.Count)-1, file)
		}
	}
	return nil
}

// noProc tells of a host without a /proc, in which nothing of ours works.
func noProc(err error) error {
	return hint.Wrap(fmt.Errorf("read id map: %w", err), "nook needs /proc: mount -t proc proc /proc")
}

// within tells whether one line of the map has the whole range; the kernel
// asks for that too (kernel/user_namespace.c, map_write).
func within(r Range, have []Range) bool {
	for _, h := range have {
		if r.Outside >= h.Inside && uint64(r.Outside)+uint64(r.Count) <= uint64(h.Inside)+uint64(h.Count) {
			return true
		}
	}
	return false
}
