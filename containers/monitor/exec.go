package monitor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/entry"
	"nook/internal/frame"
	"nook/internal/hint"
	"nook/internal/raw"
	"nook/internal/safepath"
	"nook/namespaces"
	"nook/namespaces/confine"
)

// process is one more process in the container.
type process struct {
	pid int // as the monitor counts
	io  *stdio
}

// exec serves a client that wants another process in the container.
func (m *monitor) exec(conn *net.UnixConn, frames *frame.Reader, req *containers.ExecRequest) {
	p, err := m.enter(req, enterTime)
	if err != nil {
		m.reply(conn, containers.Failed(err))
		_ = conn.Close()
		return
	}
	m.sessions.Add(1)
	if !m.reply(conn, containers.Result{}) {
		_ = conn.Close()
	}
	h := &hub{stdinOnce: true, input: p.io, signal: func(n int) { _ = unix.Kill(p.pid, unix.Signal(n)) }}
	m.execs.Store(h, nil)
	c := &client{conn: conn, first: true}
	if req.Detach {
		_ = conn.Close()
	} else {
		h.join(c)
		go h.serve(c, frames)
	}
	go func() {
		defer m.sessions.Done()
		defer m.execs.Delete(h)
		h.tell(frame.Exit, ExitStatus{m.follow(p, h)})
		h.end()
	}()
}

// endExecs waits for the clients of exec'ed processes, which ended with the
// container: those who don't read are not waited for.
func (m *monitor) endExecs() {
	m.execs.Range(func(h, _ any) bool {
		h.(*hub).hurry()
		return true
	})
	m.sessions.Wait()
}

// follow waits for the end of a process whose output goes to h.
func (m *monitor) follow(p *process, h *hub) (code int) {
	p.io.pump(h, nil)
	status, err := reap(p.pid)
	p.io.ended()
	// What it left behind may have its streams too, and nobody waits for them.
	p.io.finish()
	p.io.close()
	if err != nil {
		m.failure(err)
		return hint.ExitNook
	}
	code = exitCode(status)
	m.event("exec_die", "exitCode", fmt.Sprint(code))
	return code
}

// enterTime is how long a process may take to begin. It takes milliseconds
// unless one of the container's stops it (SIGSTOP) as soon as it can be seen.
const enterTime = 30 * time.Second

// enter starts a process in the container. One that executed nothing in time
// is killed.
func (m *monitor) enter(req *containers.ExecRequest, limit time.Duration) (*process, error) {
	if req == nil || len(req.Args) == 0 {
		return nil, errors.New("exec: no command was given")
	}
	l, err := m.awake()
	if err != nil {
		return nil, err
	}
	p, err := m.enterLife(l, req, limit)
	if err != nil && ended(l.pid) {
		err = m.notRunning() // whatever its end looked like from here
	}
	return p, err
}

func (m *monitor) enterLife(l *life, req *containers.ExecRequest, limit time.Duration) (*process, error) {
	var ends ends
	defer ends.close()
	j, err := m.join(l, req, &ends)
	if err != nil {
		return nil, err
	}
	io := ends.streams(j, req)
	reportR, reportW := ends.pipe()
	if ends.err != nil {
		return nil, ends.err
	}
	m.event("exec_create: " + strings.Join(req.Args, " "))
	program, pid := j.Program()
	defer program.Close()
	joiner, err := program.Start(0, int(reportW.Fd()))
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	_, _ = reap(joiner)
	p := &process{pid: int(*pid)}
	ends.closeInside()
	late := time.AfterFunc(limit, func() {
		if p.pid != 0 {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	})
	if req.TTY && p.pid != 0 {
		io = newTerminal(ends.terminal())
	}
	rep, refused, err := raw.ReadReport(reportR)
	switch inTime := late.Stop(); {
	case !inTime:
		err = hint.Errorf("a process of the container may have stopped it",
			"exec: it could not begin within %v", limit)
	case err == nil && refused:
		err = j.Explain(program.Error(rep))
	case err == nil && p.pid == 0:
		err = errors.New("exec: the process has no pid")
	}
	if err != nil {
		if p.pid != 0 {
			_, _ = reap(p.pid)
		}
		if io != nil {
			io.close()
		}
		return nil, err
	}
	p.io = io
	ends.taken()
	m.event("exec_start: " + strings.Join(req.Args, " "))
	return p, nil
}

// join describes the process: confined as the container's first one.
func (m *monitor) join(l *life, req *containers.ExecRequest, ends *ends) (*entry.Join, error) {
	single := m.config.IDs == string(namespaces.Single)
	j := &entry.Join{
		Pidfd: -1, Proc: -1, Namespaces: entry.Namespaces(m.config.Network),
		Args: req.Args, Env: overlay(m.config.Env, req.Env), WorkingDir: m.config.WorkingDir,
		Caps: confine.DefaultCaps, Filter: confine.Filter(single), SingleID: single,
	}
	if req.WorkingDir != "" {
		j.WorkingDir = req.WorkingDir
	}
	if req.TTY && !slices.ContainsFunc(j.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
		j.Env = append(j.Env, "TERM=xterm")
	}
	if fd, err := unix.PidfdOpen(l.pid, 0); err == nil {
		j.Pidfd = ends.keep(fd)
	} else {
		for _, name := range entry.NamespaceFiles(j.Namespaces) {
			j.Files = append(j.Files, ends.open(fmt.Sprintf("/proc/%d/ns/%s", l.host, name), unix.O_RDONLY))
		}
	}
	if single {
		j.Proc = ends.open("/proc", unix.O_PATH|unix.O_DIRECTORY)
	}
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", l.host), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("exec: open the container's root: %w", err)
	}
	defer root.Close()
	user := req.User
	if user == "" {
		user = m.config.User
	}
	j.User, err = confine.LookupUser(root, user, openInRoot)
	return j, err
}

func openInRoot(root *os.File, unsafePath string) (*os.File, error) {
	return safepath.RootAt(root).Open(unsafePath, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// overlay is env with the entries of over, which win.
func overlay(env, over []string) []string {
	out := slices.Clone(env)
	for _, e := range over {
		name, _, has := strings.Cut(e, "=")
		out = slices.DeleteFunc(out, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		if has {
			out = append(out, e)
		}
	}
	return out
}

// ends are descriptors of a process that is being started: the inside ones go
// to it, the outside ones stay here. The first error is kept.
type ends struct {
	inside, outside []*os.File
	fds             []int
	tty             *os.File
	err             error
}

func (e *ends) keep(fd int) int {
	e.fds = append(e.fds, fd)
	return fd
}

func (e *ends) open(path string, flags int) int {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("exec: open %s: %w", path, err)
	}
	return e.keep(fd)
}

// pipe makes one whose reading end stays and whose writing end goes.
func (e *ends) pipe() (outside, inside *os.File) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		if e.err == nil {
			e.err = fmt.Errorf("exec: pipe: %w", err)
		}
		return nil, nil
	}
	_ = unix.SetNonblock(p[0], true)
	outside, inside = os.NewFile(uintptr(p[0]), "pipe"), os.NewFile(uintptr(p[1]), "pipe")
	e.inside, e.outside = append(e.inside, inside), append(e.outside, outside)
	return outside, inside
}

// inPipe makes one whose writing end stays.
func (e *ends) inPipe() (outside, inside *os.File) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		if e.err == nil {
			e.err = fmt.Errorf("exec: pipe: %w", err)
		}
		return nil, nil
	}
	_ = unix.SetNonblock(p[1], true)
	outside, inside = os.NewFile(uintptr(p[1]), "pipe"), os.NewFile(uintptr(p[0]), "pipe")
	e.inside, e.outside = append(e.inside, inside), append(e.outside, outside)
	return outside, inside
}

// streams makes the streams that were asked for; those of a terminal come when
// the process made it.
func (e *ends) streams(j *entry.Join, req *containers.ExecRequest) *stdio {
	j.Streams = entry.None()
	if req.TTY {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			e.err = errors.Join(e.err, fmt.Errorf("exec: socketpair: %w", err))
			return nil
		}
		_ = unix.SetNonblock(p[0], true)
		e.tty = os.NewFile(uintptr(p[0]), "terminal")
		e.inside = append(e.inside, os.NewFile(uintptr(p[1]), "terminal"))
		spare, err := unix.FcntlInt(uintptr(p[1]), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			e.err = errors.Join(e.err, fmt.Errorf("exec: %w", err))
			return nil
		}
		j.Terminal = &entry.Terminal{Socket: p[1], Spare: e.keep(spare), Rows: req.Rows, Cols: req.Cols}
		return nil
	}
	if req.Detach {
		return &stdio{}
	}
	var in *os.File
	if req.OpenStdin {
		var inside *os.File
		if in, inside = e.inPipe(); inside != nil {
			j.Streams[0] = int(inside.Fd())
		}
	}
	out, outside := e.pipe()
	errs, errside := e.pipe()
	if e.err != nil {
		return nil
	}
	j.Streams[1], j.Streams[2] = int(outside.Fd()), int(errside.Fd())
	return newStdio(in, out, errs)
}

func (e *ends) terminal() *os.File {
	t := e.tty
	e.tty = nil
	return t
}

// closeInside closes all that the process has copies of. While one end of the
// terminal's socket is open here, its other end waits for a process that died.
func (e *ends) closeInside() {
	for _, f := range e.inside {
		_ = f.Close()
	}
	for _, fd := range e.fds {
		_ = unix.Close(fd)
	}
	e.inside, e.fds = nil, nil
}

// taken leaves the outside ends to who uses them.
func (e *ends) taken() { e.outside = nil }

func (e *ends) close() {
	e.closeInside()
	for _, f := range e.outside {
		_ = f.Close()
	}
	if e.tty != nil {
		_ = e.tty.Close()
	}
}

// collect runs a command in the container and returns the beginning of what
// it wrote, in the order that came; -1 is the code of one that took longer
// than limit, which is killed.
func (m *monitor) collect(req *containers.ExecRequest, limit time.Duration, most int) (code int, output []byte, err error) {
	p, err := m.enter(req, limit)
	if err != nil {
		return 0, nil, err
	}
	m.sessions.Add(1)
	defer m.sessions.Done()
	var late atomic.Bool
	timer := time.AfterFunc(limit, func() {
		late.Store(true)
		_ = unix.Kill(p.pid, unix.SIGKILL)
	})
	sink := &sink{most: most}
	h := &hub{signal: func(int) {}}
	h.join(&client{conn: sink})
	code = m.follow(p, h)
	if !timer.Stop() && late.Load() {
		code = -1
	}
	return code, sink.data, nil
}

// sink is a client that keeps the beginning of the output.
type sink struct {
	data []byte
	most int
}

const frameHeader = 5

func (s *sink) Write(b []byte) (int, error) {
	if len(b) > frameHeader && len(s.data) < s.most {
		s.data = append(s.data, b[frameHeader:min(len(b), frameHeader+s.most-len(s.data))]...)
	}
	return len(b), nil
}

func (s *sink) Read([]byte) (int, error)         { return 0, os.ErrClosed }
func (s *sink) Close() error                     { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
