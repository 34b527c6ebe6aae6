package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

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

// asRootFirst makes the user and starts the stage setup in a mount namespace of
// its own, and that the stage measure as the user.
func asRootFirst(s settings, page io.Writer) error {
	if _, err := testenv.MakeTestUser(); err != nil {
		return err
	}
	cmd, err := again(s, "setup")
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	cmd.Stdout = page
	return cmd.Run()
}

// again is this program with another stage.
func again(s settings, stage string) (*exec.Cmd, error) {
	exe := filepath.Join(s.base, "bench")
	if _, err := os.Stat(exe); err != nil {
		// go run's own copy is in a directory of root's alone.
		if err := copyFile("/proc/self/exe", exe); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(exe, "-stage", stage, "-base", s.base, "-nook", s.nook, "-only", s.only, "-out", s.out,
		"-rounds", strconv.Itoa(s.rounds), "-warmup", strconv.Itoa(s.warmup))
	cmd.Stderr = os.Stderr
	return cmd, nil
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
	cmd, err := again(s, "measure")
	if err != nil {
		return err
	}
	user := filepath.Join(s.base, "user")
	cmd.Dir = user
	cmd.Stdout = os.Stdout
	cmd.Env = []string{"HOME=" + user + "/home", "XDG_RUNTIME_DIR=" + user + "/run", "TMPDIR=" + user + "/tmp",
		"USER=" + who.Username, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)}}}
	err = cmd.Run()
	_ = os.WriteFile("/sys/fs/cgroup/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0o644)
	_ = removeCgroups("/sys/fs/cgroup/nook-bench")
	return err
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

// quietly runs a command and tells what it said only when it goes wrong.
func quietly(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
