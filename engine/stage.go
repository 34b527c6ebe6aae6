package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"nook/images/layers"
	"nook/internal/hint"
	"nook/internal/raw"
)

// A stage is this program started again inside the user namespace, for work
// that needs the containers' ids:
//
//	command  -- clone NEWUSER|NEWNS, raw --> maps, execve(/proc/self/exe)
//	command  -- request (JSON) ------------> stage
//	command  <- events (JSON): progress, notes, at last the answer or an error
//
// A command that goes away closes the socket, which ends the stage's context.

// stageName is argv[0] of a stage.
const stageName = "nook-stage"

const stageFD = 3

// request is one job for a stage.
type request struct {
	Root   string         `json:"root"`
	IDs    layers.IDs     `json:"ids"`
	Unpack []unpackSource `json:"unpack,omitempty"`
	// Prove: see prove.go.
	Prove   []unpackSource `json:"prove,omitempty"`
	Flatten *flattenJob    `json:"flatten,omitempty"`
	// Collect: see systemgc.go. Discard are layers that go whoever has them.
	Collect bool     `json:"collect,omitempty"`
	Discard []string `json:"discard,omitempty"`
	// Remove are containers.
	Remove []removal `json:"remove,omitempty"`
	// Sweep are ids of containers that seem to be abandoned.
	Sweep []string `json:"sweep,omitempty"`
	// Fill: see volumefill.go.
	Fill *fillJob `json:"fill,omitempty"`
	// Detached are volumes that were taken away, whose files are removed, with
	// SweepVolumes all that killed commands left too.
	Detached     []string `json:"detached,omitempty"`
	SweepVolumes bool     `json:"sweepVolumes,omitempty"`
	// CountVolumes are names of volumes whose files are counted.
	CountVolumes []string `json:"countVolumes,omitempty"`
	// Count are ids of containers whose files are counted.
	Count []string `json:"count,omitempty"`
	// VolumeTar is a volume's export or import.
	VolumeTar *volumeTarJob `json:"volumeTar,omitempty"`
	// Files is work on a container's files, Build a build's.
	Files *filesJob `json:"files,omitempty"`
	Build *buildJob `json:"build,omitempty"`
}

type unpackSource struct {
	Label  string `json:"label"`
	Path   string `json:"path"`
	DiffID string `json:"diffID"`
	Size   int64  `json:"size"`
	// Arrives is the digest of a blob that is still on its way: see arriving.go.
	Arrives string `json:"arrives,omitempty"`
	// Blob, From and Known are layers.Source's.
	Blob  string `json:"blob,omitempty"`
	From  string `json:"from,omitempty"`
	Known bool   `json:"known,omitempty"`
	Own   bool   `json:"own,omitempty"`
}

type flattenJob struct {
	Container string   `json:"container"`
	Layers    []string `json:"layers"`
}

// event is what a stage tells.
type event struct {
	Bar   int        `json:"bar,omitempty"` // a source's number, from 1
	Add   int64      `json:"add,omitempty"`
	End   bool       `json:"end,omitempty"`
	Note  string     `json:"note,omitempty"`
	Error string     `json:"error,omitempty"`
	Hint  string     `json:"hint,omitempty"`
	Errno unix.Errno `json:"errno,omitempty"`
	Done  bool       `json:"done,omitempty"`
	// Sizes are in bytes, one for each of request.Count.
	Sizes []int64 `json:"sizes,omitempty"`
	// Wrong answers a proof of layers.
	Wrong []layers.Wrong `json:"wrong,omitempty"`
	// Stat and Changes answer jobs on files.
	Stat    *PathStat       `json:"stat,omitempty"`
	Changes []layers.Change `json:"changes,omitempty"`
	// Removed is the id of a container that was, Failure why it was not.
	Removed string `json:"removed,omitempty"`
	Failure *event `json:"failure,omitempty"`
	// Made answers a build's job that makes a layer.
	Made *layers.Meta `json:"made,omitempty"`
	// Relinked comes with Made of a COPY that had an earlier one.
	Relinked *relinked `json:"relinked,omitempty"`
	// Lacks comes with the size of a step's layer: what was packed is not all of it.
	Lacks bool `json:"lacks,omitempty"`
	// Picked answers one that looks for files.
	Picked *picked `json:"picked,omitempty"`
}

// stage runs a job in a new stage.
func (e *Engine) stage(ctx context.Context, req request, tell func(event)) error {
	return e.stageWith(ctx, req, outfitted{}, tell)
}

// outfitted is what a stage has besides its socket.
type outfitted struct {
	// files are descriptors with high numbers, which the stage gets at
	// stageFD+1 and up; they are closed here.
	files []int
	// steps come before the stage starts; nil: none.
	steps func(*raw.Program)
	// feed is told to the stage while it works; nil: nothing.
	feed <-chan arrived
}

// stageWith is stage with descriptors and mounts.
func (e *Engine) stageWith(ctx context.Context, req request, o outfitted, tell func(event)) error {
	req.Root, req.IDs = e.root, layers.IDs(e.ids.Mode)
	f := fds{all: slices.Clone(o.files)}
	defer f.close()
	ours, theirs := f.socketpair(unix.SOCK_STREAM)
	if f.err != nil {
		return f.err
	}
	c, err := e.fork(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS, func(p *raw.Program) {
		if o.steps != nil {
			o.steps(p)
		}
		p.Call("place the socket", unix.SYS_DUP3, theirs, stageFD, 0)
		for i, fd := range o.files {
			p.Call("place a descriptor", unix.SYS_DUP3, fd, stageFD+1+i, 0)
		}
		p.Exec("exec the stage", "/proc/self/exe", p.Strings([]string{stageName}), p.Strings(stageEnv()))
		p.Fail("exec the stage")
	})
	if err != nil {
		return err
	}
	f.drop(theirs)
	for _, fd := range o.files {
		f.drop(fd)
	}
	if err := c.refused(); err != nil {
		c.wait()
		return fmt.Errorf("start a stage: %w", err)
	}
	last, err := converse(ctx, os.NewFile(uintptr(f.take(ours)), "stage"), req, o.feed, tell)
	status := c.wait()
	if err == nil && !last.Done {
		return stageDied(ctx, status)
	}
	return err
}

// stageEnv hands on what changes how Go runs, for measuring; nothing else.
func stageEnv() []string {
	var env []string
	for _, name := range []string{"GODEBUG", "GOMAXPROCS", "GOGC", "GORACE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func stageDied(ctx context.Context, ws unix.WaitStatus) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ws.Signaled() {
		return fmt.Errorf("a stage was ended by signal %d (%s)", ws.Signal(), ws.Signal())
	}
	return fmt.Errorf("a stage ended with status %d and without an answer", ws.ExitStatus())
}

// converse sends the request and reads the events up to the last. A context
// that ends closes our sending side; the stage cleans up and answers.
func converse(ctx context.Context, conn *os.File, req request, feed <-chan arrived, tell func(event)) (event, error) {
	defer conn.Close()
	enc := json.NewEncoder(conn)
	if err := enc.Encode(req); err != nil {
		return event{}, fmt.Errorf("talk to a stage: %w", err)
	}
	if feed != nil {
		go func() {
			for a := range feed {
				if enc.Encode(a) != nil {
					return // it ended; reading says why
				}
			}
		}()
	}
	stop := context.AfterFunc(ctx, func() {
		if c, err := conn.SyscallConn(); err == nil { // File.Fd would race with Close
			_ = c.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
		}
	})
	defer stop()
	dec := json.NewDecoder(conn)
	for {
		var ev event
		if err := dec.Decode(&ev); err != nil {
			if errors.Is(err, io.EOF) {
				return event{}, nil // the caller finds out why
			}
			return event{}, fmt.Errorf("talk to a stage: %w", err)
		}
		switch {
		case ev.Error != "":
			ev.Done = true
			if err := ctx.Err(); err != nil {
				return ev, err
			}
			return ev, ev.err()
		case ev.Done:
			return ev, nil
		case tell != nil:
			tell(ev)
		}
	}
}

// failed is the event that tells an error, and err the error that it tells.
func failed(err error) *event {
	ev := &event{Error: err.Error(), Hint: hint.Of(err)}
	_ = errors.As(err, &ev.Errno)
	return ev
}

func (ev *event) err() error {
	var err error = &stageError{ev.Error, ev.Errno}
	if ev.Hint != "" {
		err = hint.Wrap(err, ev.Hint)
	}
	return err
}

// stageError is an error that came through a socket: its text, and its errno
// for errors.Is.
type stageError struct {
	text  string
	errno unix.Errno
}

func (e *stageError) Error() string { return e.text }

func (e *stageError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// runStage is a stage's life.
func runStage() int {
	conn := os.NewFile(stageFD, "command")
	unix.CloseOnExec(stageFD)
	var req request
	dec := json.NewDecoder(conn)
	if err := dec.Decode(&req); err != nil {
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &stageRun{req: req, enc: json.NewEncoder(conn)}
	s.expect()
	go func() { // this ends when the command does
		s.hear(dec)
		cancel()
	}()
	last, err := s.run(ctx)
	if err != nil {
		last = *failed(err)
	}
	last.Done = true
	s.tell(last)
	if err != nil {
		return 1
	}
	return 0
}

type stageRun struct {
	req request
	mu  sync.Mutex
	enc *json.Encoder
	// arriving are blobs that grow, by digest.
	arriving map[string]*arriving
}

func (s *stageRun) tell(ev event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.enc.Encode(ev) // nobody listens: the context ends
}

// run does the job, with the umask that modes are written for.
func (s *stageRun) run(ctx context.Context) (event, error) {
	unix.Umask(0)
	store := layers.NewStore(layersDir(s.req.Root), s.req.IDs)
	switch {
	case s.req.Unpack != nil:
		return s.unpack(ctx, store)
	case s.req.Prove != nil:
		return s.prove(ctx, store)
	case s.req.Flatten != nil:
		return event{}, s.flatten(ctx, store)
	case s.req.Collect:
		return event{}, s.collect(ctx, store)
	case s.req.Files != nil:
		return event{}, s.files(ctx, store)
	case s.req.VolumeTar != nil:
		return event{}, s.volumeTar(ctx)
	case s.req.Build != nil:
		return event{}, s.build(ctx, store)
	case s.req.Count != nil:
		return s.count(ctx)
	case s.req.Fill != nil:
		return event{}, s.fill(ctx)
	case s.req.CountVolumes != nil:
		return event{}, s.countVolumes(ctx)
	case s.req.Detached != nil, s.req.SweepVolumes:
		return event{}, s.removeDetached(ctx)
	case s.req.Sweep != nil:
		return event{}, s.sweep()
	case s.req.Remove != nil:
		return event{}, s.remove(ctx)
	}
	return event{}, errors.New("a stage without a job")
}
