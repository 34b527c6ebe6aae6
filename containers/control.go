package containers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/frame"
	"nook/internal/hint"
)

// The client side of a monitor's control socket. Who connects is greeted with
// Hello, sends one Request and gets a Result. After attach and exec the
// connection carries streams until Exit; after dial a descriptor follows.

// The verbs of a Request.
const (
	VerbAttach  = "attach"  // the container's streams
	VerbExec    = "exec"    // another process in the container
	VerbSignal  = "signal"  // a signal for its first process
	VerbStop    = "stop"    // answered when it ended
	VerbPause   = "pause"   // every process of it
	VerbUnpause = "unpause" //
	VerbWait    = "wait"    // answered when it ended
	VerbDial    = "dial"    // a connection in the container's network
)

// Request is what a client wants of a monitor.
type Request struct {
	Verb    string       `json:"verb"`
	Exec    *ExecRequest `json:"exec,omitempty"`
	Signal  int          `json:"signal,omitempty"`  // of signal, and of stop: 0 is the container's own
	Timeout *int         `json:"timeout,omitempty"` // of stop, in seconds; nil: the container's own, negative: never
	Keep    bool         `json:"keep,omitempty"`    // of stop: --rm or not, it will be started again
	Bound   bool         `json:"bound,omitempty"`   // of pause: it ends with the connection
	Network string       `json:"network,omitempty"` // of dial: tcp, udp, unix
	Address string       `json:"address,omitempty"` // of dial: host:port, or a path in the container
}

// ExecRequest is one more process of a container.
type ExecRequest struct {
	Args       []string `json:"args"`
	Env        []string `json:"env,omitempty"`        // over the container's
	User       string   `json:"user,omitempty"`       // "": the container's
	WorkingDir string   `json:"workingDir,omitempty"` // "": the container's
	TTY        bool     `json:"tty,omitempty"`
	OpenStdin  bool     `json:"openStdin,omitempty"`
	Detach     bool     `json:"detach,omitempty"` // nobody waits for its end
	Rows       uint16   `json:"rows,omitempty"`   // of the terminal; 0: not known
	Cols       uint16   `json:"cols,omitempty"`
}

// What a monitor refuses a Request for.
var (
	// ErrNotRunning says that a container doesn't run.
	ErrNotRunning = errors.New("container is not running")
	// ErrPaused says that it is paused, which hinders what was asked;
	// ErrAlreadyPaused and ErrNotPaused answer pause and unpause.
	ErrPaused        = errors.New("is paused")
	ErrAlreadyPaused = errors.New("is already paused")
	ErrNotPaused     = errors.New("is not paused")
)

// causes are the errors that keep what they are on their way through a socket,
// by names that never change: a monitor may be of another version.
func causes() map[string]error {
	return map[string]error{"not running": ErrNotRunning, "paused": ErrPaused, "already paused": ErrAlreadyPaused, "not paused": ErrNotPaused}
}

// Result answers a Request.
type Result struct {
	Error    string     `json:"error,omitempty"`
	Cause    string     `json:"cause,omitempty"` // of causes; "": none of them, or an older monitor
	Hint     string     `json:"hint,omitempty"`
	Errno    unix.Errno `json:"errno,omitempty"`
	Code     int        `json:"code,omitempty"` // of an error: the exit code that docker gives
	ExitCode int        `json:"exitCode"`       // of wait and stop
}

// Err is the error that a monitor answered with, nil for none.
func (r Result) Err() error {
	if r.Error == "" {
		return nil
	}
	var err error = &remoteError{r.Error, r.Errno, causes()[r.Cause]}
	if r.Hint != "" {
		err = hint.Wrap(err, r.Hint)
	}
	if r.Code != 0 {
		err = hint.WithCode(err, r.Code)
	}
	return err
}

// Failed is the Result that tells err.
func Failed(err error) Result {
	r := Result{Error: err.Error(), Hint: hint.Of(err), Code: hint.Code(err)}
	var errno unix.Errno
	if errors.As(err, &errno) {
		r.Errno = errno
	}
	for name, cause := range causes() {
		if errors.Is(err, cause) {
			r.Cause = name
		}
	}
	return r
}

// remoteError is an error that came through a socket: its text, and its errno
// and cause for errors.Is.
type remoteError struct {
	text  string
	errno unix.Errno
	cause error
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() []error {
	var all []error
	if e.errno != 0 {
		all = append(all, e.errno)
	}
	if e.cause != nil {
		all = append(all, e.cause)
	}
	return all
}

// ErrNoMonitor says that nobody answers for a container: it ended, or its
// monitor was killed, or never had a place for a socket.
var ErrNoMonitor = errors.New("container has no monitor")

// ErrSilent says that a container's monitor is there and doesn't answer.
var ErrSilent = errors.New("its monitor doesn't answer")

// Conn is a connection to a monitor.
type Conn struct {
	*net.UnixConn
	// Version is the monitor's protocol version.
	Version int
	frames  *frame.Reader
}

// helloTime is how long a monitor may take to greet: it answers at once unless
// it is stopped or the machine hangs.
const helloTime = 10 * time.Second

// Connect connects to the container's monitor. Where the socket is stands in
// state; the one beside the record is tried when it isn't known.
func (c Container) Connect(ctx context.Context, s State) (*Conn, error) {
	path := s.Socket
	if !filepath.IsAbs(path) {
		// A unix socket's path has room for 107 bytes, and the container's
		// own may be longer.
		dir, err := os.OpenFile(c.Path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, fmt.Errorf("container %.12s: %w: %w", c.ID, ErrNoMonitor, err)
		}
		defer dir.Close()
		path = fmt.Sprintf("/proc/self/fd/%d/sock", dir.Fd())
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("container %.12s: %w: %w", c.ID, ErrNoMonitor, withoutPath(err))
	}
	m := &Conn{UnixConn: conn.(*net.UnixConn), frames: frame.NewReader(conn)}
	_ = m.SetReadDeadline(time.Now().Add(helloTime))
	kind, payload, err := m.frames.Next()
	var hello struct{ Version int }
	if err == nil && kind == frame.Hello {
		err = json.Unmarshal(payload, &hello)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = m.Close()
		return nil, hint.Errorf("it may be stopped (kill -CONT) or the machine busy; nook stop or nook rm -f ends it",
			"container %.12s: %w: %w", c.ID, ErrNoMonitor, ErrSilent)
	}
	if err != nil || kind != frame.Hello {
		_ = m.Close()
		return nil, errors.Join(fmt.Errorf("container %.12s: %w: no greeting", c.ID, ErrNoMonitor), err)
	}
	m.Version = hello.Version
	_ = m.SetReadDeadline(time.Time{})
	return m, nil
}

// withoutPath is an error of a connection whose text doesn't name the socket's
// path through our descriptor.
func withoutPath(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Next reads a message: frame.Reader.
func (m *Conn) Next() (frame.Kind, []byte, error) { return m.frames.Next() }

// Ask sends a request and waits for its result. A ctx that ends closes the
// connection; what the monitor began it goes on with.
func (m *Conn) Ask(ctx context.Context, r Request) (Result, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return Result{}, fmt.Errorf("encode a request: %w", err)
	}
	if len(data) > frame.MaxPayload {
		return Result{}, fmt.Errorf("%s: a request of %d bytes: %w", r.Verb, len(data), unix.E2BIG)
	}
	stop := context.AfterFunc(ctx, func() { _ = m.Close() })
	defer stop()
	err = frame.Write(m, frame.Request, data)
	for err == nil {
		var kind frame.Kind
		var payload []byte
		if kind, payload, err = m.frames.Next(); err == nil && kind == frame.Result {
			var result Result
			if err = json.Unmarshal(payload, &result); err == nil {
				return result, result.Err()
			}
		}
	}
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	return Result{}, fmt.Errorf("%s: %w: %w", r.Verb, ErrNoMonitor, withoutPath(err))
}
