package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"nook/containers"
	"nook/containers/logs"
	"nook/internal/hint"
)

// waiting is somebody's wait for something of a container: its log is followed
// for its last lines, and its end ends the wait.
type waiting struct {
	e      *Engine
	ct     containers.Container
	cfg    *containers.Config
	what   string
	called string

	caller context.Context //nolint:containedctx // all three are of one call
	ctx    context.Context //nolint:containedctx // ends with the container too
	stop   func()
	all    sync.WaitGroup
	code   chan int // of a container that ended; -1: not known

	ended chan struct{} // closed when the fields below are set
	lines lastLines
	err   error // of following; nil: the container ended
}

// errMatched ends the following of a log.
var errMatched = errors.New("matched")

// waitable finds a container that was started.
func (e *Engine) waitable(ctx context.Context, nameOrID, what string) (*waiting, error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	w := &waiting{e: e, ct: ct, what: what, called: nameOrID, caller: ctx, code: make(chan int, 1), ended: make(chan struct{})}
	w.cfg, err = ct.Config()
	return w, err
}

// begin follows the log, all of it or the last lines, until the container's
// end, which ends w.ctx too. match may be nil.
func (w *waiting) begin(tail int, match func(line []byte) bool) error {
	state, err := w.ct.State()
	if err != nil {
		return err
	}
	if state.Status == containers.Created {
		// Removed a moment ago, or in a moment.
		if _, err := w.ct.Config(); errors.Is(err, fs.ErrNotExist) || w.cfg.Remove && !w.ct.HasState() {
			return w.wrap(fmt.Errorf("container %.12s: %w", w.ct.ID, containers.ErrNotFound))
		}
		return hint.Errorf("nook start it first", "container %s: %w: it was never started", w.called, ErrNotRunning)
	}
	reader, err := logs.NewReader(w.ct.Path, logs.DefaultLimits(), logs.ReadOptions{
		Tail: tail, Since: state.Started, Follow: true,
	})
	if err != nil {
		return w.wrap(err)
	}
	ctx, over := context.WithCancel(w.caller)
	asking, stopAsking := context.WithCancel(w.caller)
	w.ctx, w.stop = ctx, func() { over(); stopAsking() }
	w.all.Go(func() {
		// Asked from the beginning: one that is removed at its end has nobody
		// left to ask.
		code, err := w.e.waitSince(asking, w.ct, state)
		if err != nil {
			code = -1
		}
		w.code <- code
	})
	w.all.Go(func() {
		defer over()
		defer close(w.ended)
		out := &lineWriter{line: w.take(match)}
		errs := &lineWriter{line: out.line}
		err := follow(ctx, w.ct, reader, LogsOptions{Follow: true, Stdout: out, Stderr: errs})
		if err == nil && (out.end() || errs.end()) {
			err = errMatched
		}
		w.err = errors.Join(err, reader.Close())
	})
	return nil
}

// take sees every line of the container.
func (w *waiting) take(match func([]byte) bool) func([]byte) bool {
	return func(line []byte) bool {
		w.lines.add(line)
		return match != nil && match(line)
	}
}

// close ends the following. It may be called again.
func (w *waiting) close() {
	w.stop()
	w.all.Wait()
}

// failed tells why the wait ended: by why, by the caller's context or by the
// container's end.
func (w *waiting) failed(last string, why error) error {
	code := -1
	select {
	case <-w.ended:
		if w.err == nil {
			why, code = ErrNotRunning, w.exitCode()
		}
	default:
	}
	if why == nil {
		why = context.Cause(w.caller) // nil while it isn't over
	}
	w.close()
	if why == nil {
		return w.wrap(w.err)
	}
	return &WaitError{For: w.what, Container: w.called, Last: last, Log: w.lines.list(), Err: why, ExitCode: code}
}

func (w *waiting) wrap(err error) error {
	return fmt.Errorf("wait for %s of container %s: %w", w.what, w.called, err)
}

// exitCode is that of a container that has ended.
func (w *waiting) exitCode() int {
	if state, err := w.ct.State(); err == nil && state.Status == containers.Exited {
		return state.ExitCode
	}
	return <-w.code // it was removed
}

// What is kept of a log, for the error.
const (
	tailLines   = 10
	longestSeen = 500     // bytes of a line in an error
	longestLine = 1 << 20 // bytes of a line that match sees
)

// lastLines are the last lines of a log.
type lastLines struct {
	ring [tailLines][]byte
	n    int // added so far
}

func (l *lastLines) add(line []byte) {
	slot := &l.ring[l.n%tailLines]
	*slot = append((*slot)[:0], line[:min(len(line), longestSeen)]...)
	l.n++
}

func (l *lastLines) list() []string {
	var out []string
	for i := max(0, l.n-tailLines); i < l.n; i++ {
		out = append(out, string(l.ring[i%tailLines]))
	}
	return out
}

// lineWriter cuts a stream into lines.
type lineWriter struct {
	line func([]byte) (enough bool)
	part []byte
}

// Write returns errMatched when line has enough.
func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			w.keep(p)
			break
		}
		text := p[:i]
		if len(w.part) > 0 {
			w.keep(text)
			text = w.part
		}
		w.part = w.part[:0]
		if w.line(lineText(text)) {
			return 0, errMatched
		}
		p = p[i+1:]
	}
	return n, nil
}

func (w *lineWriter) keep(p []byte) {
	w.part = append(w.part, p[:min(len(p), longestLine-len(w.part))]...)
}

// end tells the line that has no end.
func (w *lineWriter) end() (enough bool) {
	return len(w.part) > 0 && w.line(lineText(w.part))
}

// lineText is a line as match sees it: a terminal ends lines by \r\n.
func lineText(line []byte) []byte {
	line = line[:min(len(line), longestLine)]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}
