package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

//go:embed floor/floor.c
var floorSource []byte

func compileFloor(base string) error {
	source := filepath.Join(base, "floor.c")
	if err := os.WriteFile(source, floorSource, 0o644); err != nil {
		return err
	}
	return quietly(exec.Command("gcc", "-O2", "-o", filepath.Join(base, "floor"), source))
}

// busybox makes rootfs/ and busybox.tar, an image with the same content.
func busybox(base string) error {
	img, err := testimage.Busybox()
	if err != nil {
		return err
	}
	root := filepath.Join(base, "rootfs")
	for _, e := range img.Layers[0].Entries {
		name := filepath.Join(root, e.Name)
		switch e.Typeflag {
		case '5':
			err = os.MkdirAll(name, 0o755)
		case '2':
			err = os.Symlink(e.Linkname, name)
		default:
			err = os.WriteFile(name, []byte(e.Body), os.FileMode(e.Mode))
		}
		if err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(base, "busybox.tar"))
	if err != nil {
		return err
	}
	return errors.Join(img.WriteDocker(f), f.Close())
}

// asRootFirst makes the user and starts the stage setup in mount and pid
// namespaces of its own, and that the stage measure as the user.
func asRootFirst(ctx context.Context, s settings, page io.Writer) error {
	if _, err := testenv.MakeTestUser(); err != nil {
		return err
	}
	cmd := again(ctx, s, "setup")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	cmd.Stdout = page
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	// The thread that starts it must live as long: Pdeathsig is about threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// again is this program with another stage.
func again(ctx context.Context, s settings, stage string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, benchIn(s.base), "-stage", stage, "-base", s.base, "-nook", s.nook, "-only", s.only, "-out", s.out,
		"-quick="+strconv.FormatBool(s.quick), "-rounds", strconv.Itoa(s.rounds), "-warmup", strconv.Itoa(s.warmup))
	cmd.Stderr = os.Stderr
	return cmd
}

// setup is root's part: what the peers need on a host with the hybrid cgroup
// hierarchy and no systemd (crun: a pure cgroup2; podman: / shared and a
// runtime directory). Each step that doesn't work is told and left out.
func setup(s settings) error {
	who, err := testenv.MakeTestUser()
	if err != nil {
		return err
	}
	uid, gid := number(who.Uid), number(who.Gid)
	note := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", what, err)
		}
	}
	note("make / private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	note("mount /proc", unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	note("make / shared", unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	note("cgroup2", ownCgroup(uid, gid))
	for _, d := range []string{"upper", "work", "merged", "user", "user/home", "user/run", "user/tmp"} {
		dir := filepath.Join(s.base, d)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	note("overlay for the bundles", unix.Mount("overlay", filepath.Join(s.base, "merged"), "overlay", 0,
		fmt.Sprintf("lowerdir=%[1]s/rootfs,upperdir=%[1]s/upper,workdir=%[1]s/work", s.base)))
	cmd := again(context.Background(), s, "measure")
	user := filepath.Join(s.base, "user")
	cmd.Dir = user
	cmd.Stdout = os.Stdout
	cmd.Env = []string{"HOME=" + user + "/home", "XDG_RUNTIME_DIR=" + user + "/run", "TMPDIR=" + user + "/tmp",
		"USER=" + who.Username, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}}
	err = runAsInit(cmd)
	_ = os.WriteFile("/sys/fs/cgroup/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0o644)
	_ = removeCgroups("/sys/fs/cgroup/nook-bench")
	return err
}

// runAsInit runs a command and reaps whatever else becomes a child of ours; then
// it ends all that is left, which is what pid 1 of a namespace can do. SIGTERM
// does so at once.
func runAsInit(cmd *exec.Cmd) error {
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(ask)
	if err := cmd.Start(); err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return cmd.Wait()
	}
	killAll := func() { _ = syscall.Kill(-1, syscall.SIGKILL) }
	go func() {
		if _, asked := <-ask; asked {
			killAll()
		}
	}()
	var result error
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD: nothing is left
			return result
		case pid == cmd.Process.Pid:
			if status != 0 {
				result = fmt.Errorf("the stage measure ended with wait status %#x", uint32(status))
			}
			killAll()
		}
	}
}

// ownCgroup mounts a pure cgroup2 and moves this process into a subtree of it
// that the user owns.
func ownCgroup(uid, gid int) error {
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
		return err
	}
	const own = "/sys/fs/cgroup/nook-bench"
	if err := os.MkdirAll(own+"/self", 0o755); err != nil {
		return err
	}
	for _, dir := range []string{own, own + "/self"} {
		for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
			if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(own+"/self/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// removeCgroups removes a subtree of empty groups, the deepest first.
func removeCgroups(dir string) error {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if e.IsDir() {
			err = errors.Join(err, removeCgroups(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, unix.Rmdir(dir))
}

// removeAll removes base, also what sub-ids of a plain user own in it.
func removeAll(base string) error { return testenv.RemoveAll(base) }

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}

// quietly runs a command and tells what it said only when it goes wrong. What
// it says goes to a file: the end of a pipe would be that of a process which it
// left behind.
func quietly(cmd *exec.Cmd) error {
	said, err := os.CreateTemp("", "said-")
	if err != nil {
		return err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	if _, err := clock(cmd); err != nil {
		text, _ := os.ReadFile(said.Name())
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(text)))
	}
	return nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
