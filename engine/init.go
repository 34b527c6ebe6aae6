package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"

	"nook/containers/pid1"
	"nook/internal/hint"
	"nook/rootfs"
)

// initName is argv[0] of the reaper of run --init.
const initName = "nook-init"

// reaper is this program, to be run inside: by a read-only clone of the mount
// it lies on, or, when its file is gone (go run, an upgrade) or mounts can't be
// cloned here, as a sealed copy in memory.
func reaper(f *fds) (*pid1.Executable, error) {
	argv := []string{initName}
	if path := ownFile(); path != "" && rootfs.ClonesMounts() {
		return &pid1.Executable{Path: path, FD: f.dir("/"), Argv: argv}, nil
	}
	fd, err := sealedCopy()
	if err != nil {
		return nil, fmt.Errorf("copy our own executable: %w", err)
	}
	return &pid1.Executable{FD: f.high(fd, nil), Argv: argv}, nil
}

// ownFile is the path of our executable, "" when it lies there no more.
func ownFile() string {
	var self, file unix.Stat_t
	path, err := os.Readlink("/proc/self/exe")
	if err != nil || unix.Stat("/proc/self/exe", &self) != nil || unix.Stat(path, &file) != nil {
		return ""
	}
	if file.Dev != self.Dev || file.Ino != self.Ino {
		return ""
	}
	return path
}

// sealedCopy makes a memfd that nobody can write to any more
// (memfd_create(2), File sealing).
func sealedCopy() (int, error) {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return -1, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate(initName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	for {
		n, err := unix.Sendfile(fd, int(src.Fd()), nil, 1<<20)
		if err != nil && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("sendfile: %w", err)
		}
		if n == 0 && err == nil {
			break
		}
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("seal: %w", err)
	}
	return fd, nil
}

// outOfReach tells whether nobody in the container can change our executable
// by /proc/1/exe: it was started by one of the two ways of reaper. An image
// starts it too, as an entrypoint nook-init that links to /proc/self/exe, or
// names it in a #! line: pid 1 is this program until it executes another, and
// would then go on as the host's own file, whose mode the container's root
// could change (CVE-2019-5736 is its content).
func outOfReach() bool {
	const self = "/proc/self/exe"
	var st unix.Statfs_t
	if unix.Statfs(self, &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	fd, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_WRITE != 0
}

// lured tells whether an image made its first process this program, by an
// entrypoint of /proc/self/exe or a #! line that names it: it would go on as
// the host's own file, and what it starts could change that by /proc/1/exe.
// Only a container's first process is forked from a command; a monitor
// runs from where nothing can be changed.
func lured() bool {
	if os.Getpid() != 1 || outOfReach() || ownFile() != "" {
		return false
	}
	var st unix.Stat_t // one that was deleted, as of go run, is nobody's to change
	return unix.Stat("/proc/self/exe", &st) == nil && st.Nlink > 0
}

// runInit is pid 1 of a container with --init: it starts the entrypoint,
// passes signals on, reaps what nobody waits for, and ends as the entrypoint
// does.
func runInit(args []string) int {
	if len(args) == 0 {
		return hint.ExitNook
	}
	if !outOfReach() {
		fmt.Fprintln(os.Stderr, "nook: "+initName+": not started by --init")
		return hint.ExitNook
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	path, err := exec.LookPath(args[0])
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	if err == nil {
		return superviseInit(path, args, signals)
	}
	// The lookup's own text would name the command once more.
	if inner := (*exec.Error)(nil); errors.As(err, &inner) {
		err = inner.Err
	}
	fmt.Fprintf(os.Stderr, "nook: exec %q: %v\n", args[0], err)
	if errors.Is(err, os.ErrPermission) {
		return hint.ExitCannotRun
	}
	return hint.ExitNotFound
}

func superviseInit(path string, args []string, signals <-chan os.Signal) int {
	child, err := os.StartProcess(path, args, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "nook: exec %q: %v\n", args[0], err)
		return hint.ExitCannotRun
	}
	go func() {
		for sig := range signals {
			if n := sig.(unix.Signal); n != unix.SIGCHLD && n != unix.SIGURG {
				_ = unix.Kill(child.Pid, n)
			}
		}
	}()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return hint.ExitNook
		case pid == child.Pid && ws.Signaled():
			return hint.ExitSignal + int(ws.Signal())
		case pid == child.Pid && ws.Exited():
			return ws.ExitStatus()
		}
	}
}
