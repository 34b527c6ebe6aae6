package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// ErrNoFreezer says that no group of ours can freeze processes.
var ErrNoFreezer = errors.New("no freezer")

// Freezer is a group of cgroup2 below our own that holds processes still:
// none of them can see that it was frozen, nor undo it.
//
//	f, err := cgroups.NewFreezer("nook-" + id)
//	err = f.Freeze()
//	err = f.Add(pid)
//	err = f.Wait(10 * time.Second)
//	err = f.Thaw()
//	err = f.Remove()
//
// It is cgroup2's, also of a hybrid host, where the freezer needs no
// controller. The freezer of cgroup v1 is left alone: a process frozen by it
// doesn't even end by SIGKILL. The end of a paused container's monitor
// would then leave all of the container behind for ever, where cgroup2's lets
// it be killed (Documentation/admin-guide/cgroup-v2.rst, cgroup.freeze).
type Freezer struct{ dir string }

// NewFreezer makes the group, or takes the one of this name that is there.
// ErrNoFreezer: nothing here is ours to write, or the kernel is older than 5.2.
func NewFreezer(name string) (*Freezer, error) {
	own, err := ownUnified(mountPoint, "/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return newFreezer(own, name)
}

// ownUnified is the directory of our group in the cgroup2 hierarchy.
func ownUnified(root, membership string) (string, error) {
	switch hierarchy(root) {
	case Unified:
	case Hybrid:
		root = filepath.Join(root, "unified")
	default:
		return "", fmt.Errorf("%w: no cgroup2 at %s", ErrNoFreezer, root)
	}
	group, ok := memberships(membership)[""]
	if !ok {
		return "", fmt.Errorf("%w: we are in no group of cgroup2", ErrNoFreezer)
	}
	return filepath.Join(root, group), nil
}

func newFreezer(own, name string) (*Freezer, error) {
	f := &Freezer{filepath.Join(own, name)}
	if err := unix.Mkdir(f.dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("%w: make %s: %w", ErrNoFreezer, f.dir, err)
	}
	if err := unix.Access(filepath.Join(f.dir, "cgroup.freeze"), unix.W_OK); err != nil {
		_ = f.Remove()
		return nil, fmt.Errorf("%w: %s: %w", ErrNoFreezer, f.dir, err)
	}
	return f, nil
}

// Add moves a process in, with all its threads. pid is as the caller counts.
// ESRCH: it ended.
func (f *Freezer) Add(pid int) error {
	if err := f.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("move process %d to %s: %w", pid, f.dir, err)
	}
	return nil
}

// Members are the processes in the group, as the caller counts; 0 stands for
// each that it can't see.
func (f *Freezer) Members() (map[int]bool, error) {
	text, err := os.ReadFile(filepath.Join(f.dir, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("list the processes of a freezer: %w", err)
	}
	members := make(map[int]bool)
	for _, line := range bytes.Fields(text) {
		pid, err := strconv.Atoi(string(line))
		if err != nil {
			return nil, fmt.Errorf("list the processes of %s: %w", f.dir, err)
		}
		members[pid] = true
	}
	return members, nil
}

// Freeze begins to stop who is in the group or will be.
func (f *Freezer) Freeze() error { return f.set("1") }

// Thaw lets them go on.
func (f *Freezer) Thaw() error { return f.set("0") }

func (f *Freezer) set(value string) error {
	if err := f.write("cgroup.freeze", value); err != nil {
		return fmt.Errorf("write %s to cgroup.freeze of %s: %w", value, f.dir, err)
	}
	return nil
}

// Wait waits until all in the group stand still. One that waits for a device
// or a remote file system can take as long as that does.
func (f *Freezer) Wait(limit time.Duration) error {
	err := f.wait("frozen 1\n", limit)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return hint.Errorf("one of its processes may wait for a device or a remote file system",
			"freeze %s: not all stand still after %s: %w", f.dir, limit, err)
	}
	return err
}

// wait waits until cgroup.events has the line.
func (f *Freezer) wait(line string, limit time.Duration) error {
	events, err := os.Open(filepath.Join(f.dir, "cgroup.events"))
	if err != nil {
		return fmt.Errorf("watch a freezer: %w", err)
	}
	defer events.Close()
	for end := time.Now().Add(limit); ; {
		// A read arms the event that the next poll waits for (kernfs).
		var buf [256]byte
		n, err := events.ReadAt(buf[:], 0)
		if n == 0 && err != nil {
			return fmt.Errorf("watch a freezer: %w", err)
		}
		if bytes.Contains(buf[:n], []byte(line)) {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch a freezer: %w", err)
		}
	}
}

// Remove takes the group away once the last process in it ended, which is
// waited for: the end that wait(2) tells comes a little earlier. It may be gone
// already.
func (f *Freezer) Remove() error {
	const patience = time.Second
	err := unix.Rmdir(f.dir)
	if errors.Is(err, unix.EBUSY) && f.wait("populated 0\n", patience) == nil {
		err = unix.Rmdir(f.dir)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the group %s: %w", f.dir, err)
	}
	return nil
}

// SweepFreezers removes the empty groups beside ours whose names begin with
// prefix: those of processes that were killed before they could.
func SweepFreezers(prefix string) {
	own, err := ownUnified(mountPoint, "/proc/self/cgroup")
	if err != nil {
		return
	}
	left, _ := filepath.Glob(filepath.Join(own, prefix) + "*")
	for _, dir := range left {
		_ = unix.Rmdir(dir) // refused while a process is in it
	}
}

func (f *Freezer) write(name, value string) error {
	fd, err := unix.Open(filepath.Join(f.dir, name), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
