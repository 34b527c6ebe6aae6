package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// RemoveAll is os.RemoveAll also for what the sub-ids of this user own, which
// only a process with those ids can remove.
func RemoveAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	if mapped := asMappedRoot(`chmod -R u+rwx -- "$1"; rm -rf -- "$1"`, dir); mapped != nil {
		return errors.Join(err, mapped)
	}
	return nil
}

// asMappedRoot runs a shell script with arguments as root of a user namespace
// that has this user's sub-ids.
func asMappedRoot(script string, args ...string) error {
	me, err := user.Current()
	if err != nil {
		return err
	}
	// The script starts when the maps are there: its first line reads one. The
	// maps come when the shell has begun: dash asks for its real and effective
	// ids, and takes the real one where they differ. Of a map between the two
	// questions it would take 65534, which is another's for newgidmap and us.
	cmd := exec.Command("/bin/sh", append([]string{"-c", "echo; read go\n" + script, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, AmbientCaps: allCaps()}
	cmd.Stderr = os.Stderr
	start, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	begun, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("user namespace: %w", err)
	}
	_, err = begun.Read(make([]byte, 1))
	if err == nil {
		err = mapSubids(cmd.Process.Pid, me)
	}
	if err != nil {
		_ = start.Close()
		_ = cmd.Process.Kill()
		return errors.Join(err, cmd.Wait())
	}
	_, _ = start.Write([]byte("go\n"))
	_ = start.Close()
	return cmd.Wait()
}

// mapSubids gives a process of a new user namespace this user's ids: 0 is the
// user, 1 and up the range of /etc/subuid.
func mapSubids(pid int, me *user.User) error {
	for _, m := range []struct{ file, helper, self string }{
		{"/etc/subuid", "newuidmap", me.Uid},
		{"/etc/subgid", "newgidmap", me.Gid},
	} {
		start, count, err := subidRange(m.file, me)
		if err != nil {
			return err
		}
		if err := run(exec.Command(m.helper, strconv.Itoa(pid), "0", m.self, "1", "1", start, count)); err != nil {
			return advise(err, "uidmap")
		}
	}
	return nil
}

// allCaps are kept across the exec of a process whose maps are not written yet.
func allCaps() []uintptr {
	var caps []uintptr
	for c := uintptr(0); c <= 37; c++ { // CAP_AUDIT_READ: there since Linux 3.16
		caps = append(caps, c)
	}
	return caps
}
