package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
	"nook/rootfs"
)

// The verbs over a container's files (cp, diff, commit, export) work in a stage
// (treestage.go), on one of these:
//
//	a running container    the root of its first process, with all mounts, for
//	                       cp; its upper directory for the others
//	a stopped one          the same mounts but the kernel's, made by the stage
//	                       while the command holds the container's lock; its
//	                       upper directory for the others

// tree is a container's files within reach.
type tree struct {
	containers.Container
	cfg   *containers.Config
	state containers.State
	lock  *containers.Lock // of one that doesn't run
	root  *os.File         // of one that runs, opened with O_PATH
}

// Bounds of the moment in which a container begins or ends to run.
const (
	settleTries = 100
	settlePause = 10 * time.Millisecond
)

// tree finds a container and holds it, or the root of its first process.
func (e *Engine) tree(ctx context.Context, nameOrID string) (*tree, error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	t := &tree{Container: ct}
	if t.cfg, err = ct.Config(); err != nil {
		return nil, err
	}
	if err := e.checkIDs(t.cfg); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if t.state, err = ct.State(); err != nil {
			return nil, err
		}
		if t.state.Status == containers.Running || t.state.Status == containers.Paused {
			t.root, err = processRoot(t.state)
		} else {
			t.lock, err = ct.TryLock()
		}
		if err == nil || errors.Is(err, containers.ErrNotFound) || try == settleTries {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settlePause):
		}
	}
}

func (t *tree) close() {
	t.lock.Release()
	if t.root != nil {
		_ = t.root.Close()
	}
}

// errGone says that a container's process ended since its state was read.
var errGone = errors.New("its first process is gone")

// processRoot opens the root directory of a container's first process. The pid
// may be another's since the state was read: it must be the monitor's child,
// and its root not ours.
func processRoot(s containers.State) (*os.File, error) {
	proc := "/proc/" + strconv.Itoa(s.Pid)
	f, err := os.OpenFile(proc+"/root", unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, errGone
	}
	if err != nil {
		return nil, fmt.Errorf("open the root of process %d: %w", s.Pid, err)
	}
	var root, ours unix.Stat_t
	err = errors.Join(unix.Fstat(int(f.Fd()), &root), unix.Stat("/", &ours))
	if err != nil || root.Dev == ours.Dev && root.Ino == ours.Ino || !s.Monitor.Alive() || parent(proc) != s.Monitor.Pid {
		_ = f.Close()
		return nil, errors.Join(errGone, err)
	}
	return f, nil
}

// parent reads field 4 of /proc/PID/stat; the second may hold spaces and
// parentheses.
func parent(proc string) int {
	data, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(fields[1])
	return pid
}

// inMemory tells that the writable layer is the memory of a running process:
// there is no directory to compare, only the whole root.
func (t *tree) inMemory() bool { return rootfs.Kind(t.cfg.Rootfs) == rootfs.OverlayTmpfs }

// job describes the container's files to a stage.
func (e *Engine) treeJob(t *tree, do string) *filesJob {
	return &filesJob{Do: do, Container: t.ID, Kind: t.cfg.Rootfs, Layers: t.cfg.Layers}
}

// run does a job in a stage. data is the stage's end of a pipe, -1 for none.
// mounted: it wants the container's root, with its mounts.
func (e *Engine) treeStage(ctx context.Context, t *tree, job *filesJob, data int, mounted bool, tell func(event)) error {
	var f fds
	defer f.close()
	o := outfitted{}
	if data >= 0 {
		o.files = append(o.files, data)
		job.Data = true
	}
	switch {
	case t.root != nil && (mounted || t.inMemory()):
		o.files = append(o.files, f.take(f.copy(int(t.root.Fd()))))
		job.Root = true
	case mounted:
		if t.inMemory() {
			f.fail(hint.Errorf("start it first", "container %s: its files are in memory, and only while it runs", t.cfg.Name))
			break
		}
		reserve := func() int { return f.dir("/") }
		r, err := e.rootFor(reserve, t.Container, t.cfg)
		if err != nil {
			f.fail(err)
			break
		}
		r.Volatile = false // the mark of such a mount would outlive the stage
		o.steps = r.Mount
		job.Mounts, job.ReadOnly = t.cfg.Mounts, t.cfg.ReadOnly
	case do(job, jobArchive) && rootfs.Kind(t.cfg.Rootfs) != rootfs.Copy:
		skeleton, err := e.skeleton()
		if err != nil {
			f.fail(err)
		}
		job.Skeleton = skeleton
	}
	if f.err != nil {
		for _, fd := range o.files {
			_ = unix.Close(fd)
		}
		return f.err
	}
	err := e.stageWith(ctx, request{Files: job}, o, func(ev event) {
		if ev.Note != "" {
			e.note("%s", ev.Note)
		} else if tell != nil {
			tell(ev)
		}
	})
	if refusesOverlay(err) {
		return hint.Wrap(err, "cp into and out of a container that doesn't run needs an overlay mount; start it, or use nook export")
	}
	return err
}

func do(job *filesJob, what string) bool { return job.Do == what }

// output is what a stage writes to a pipe: its end comes only when the stage
// did well.
type output struct {
	pipe   *os.File
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of the stage, once done is closed
	close  func()
}

// treeOutput starts a job that writes. It holds the tree until it is closed.
func (e *Engine) treeOutput(ctx context.Context, t *tree, job *filesJob, mounted bool, tell func(event)) (*output, error) {
	var f fds
	defer f.close()
	r, w := f.pipe()
	if f.err != nil {
		t.close()
		return nil, f.err
	}
	widen(r)
	ctx, cancel := context.WithCancel(ctx)
	o := &output{pipe: f.file(r, "files of "+t.cfg.Name), cancel: cancel, done: make(chan struct{}), close: t.close}
	w = f.take(w)
	go func() {
		defer close(o.done)
		o.err = e.treeStage(ctx, t, job, w, mounted, tell)
	}()
	return o, nil
}

// widen gives a pipe more room, where the user's limit allows it.
func widen(pipe int) {
	const room = 1 << 20
	_, _ = unix.FcntlInt(uintptr(pipe), unix.F_SETPIPE_SZ, room)
}

func (o *output) Read(p []byte) (int, error) {
	n, err := o.pipe.Read(p)
	if err != nil {
		<-o.done
		if o.err != nil {
			err = o.err
		}
	}
	return n, err
}

// Close ends the stage, if it isn't done, and lets the container go.
func (o *output) Close() error {
	o.cancel()
	err := o.pipe.Close()
	<-o.done
	o.close()
	return err
}

// ownPath tells the paths that nook itself puts into each container: what is
// there is hidden by mounts (rootfs.Root.Populate).
func ownPath(name string) bool {
	switch first, _, _ := strings.Cut(name, "/"); first {
	case "proc", "sys", "dev":
		return true
	}
	for _, file := range etcNames() {
		if name == filepath.Join("etc", file) {
			return true
		}
	}
	return false
}
