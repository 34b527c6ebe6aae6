// Package monitor is the process that owns a container: it keeps the
// container's standard streams, its log and its state, starts it again as its
// restart policy says, checks its health, and serves whoever connects, over the
// frames of internal/frame.
//
//	CLI -- clone NEWUSER|NEWPID --> monitor, raw -- clone NEW* --> pid 1
//	                                   | execve(/proc/self/exe)      | mounts ...
//	                                   v                             v
//	                                monitor, Go  <-- pipes, pty -- entrypoint
//	                                   | clone, setns, clone
//	                                   v
//	                                exec'ed processes
//
// The monitor is pid 1 of a pid namespace; the container's is nested in it.
// It has the container's user namespace, and the host's mounts in a mount
// namespace of its own. It doesn't know images, and it decides nothing about
// what runs: that stands in config.json.
package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/events"
	"nook/containers/logs"
	"nook/containers/pause"
	"nook/internal/atomicfile"
	"nook/internal/frame"
	"nook/internal/raw"
)

// firstChild is pid 1 of the container as the monitor counts: the first
// process that the first process of a pid namespace forks.
const firstChild = 2

type monitor struct {
	container containers.Container
	config    *containers.Config
	root      string // the data root
	log       *logs.Writer
	hub       hub
	first     *client
	firstGone <-chan struct{}
	sessions  sync.WaitGroup // exec'ed processes
	execs     sync.Map       // their hubs: *hub
	answering sync.WaitGroup // requests that get an answer
	pausing   sync.Mutex
	naming    sync.Mutex
	named     struct {
		name    string
		ino     uint64
		changed unix.Timespec
	}
	events   chan events.Event
	recorded chan struct{}

	mu      sync.Mutex
	state   containers.State
	life    *life         // nil while nothing runs
	stopped chan struct{} // closed when somebody asked for the end
	keep    bool          // --rm or not: whoever stops it starts it again
	done    chan struct{} // closed when the container is left for good
}

// life is one run of the entrypoint.
type life struct {
	pid  int // as the monitor counts
	host int // as the host's /proc counts
	io   *stdio
	over chan struct{} // closed when it ended
	// began is when its output began to be read: no line of it in the log is older.
	began time.Time
	// pauser is there once the life was paused. Only who holds pausing uses it.
	pauser *pause.Pauser
	paused bool
}

// Run is the monitor's life. It returns the exit status of the process.
func Run() int {
	// A monitor holds a few hundred kilobytes and waits: collect early, keep
	// little.
	debug.SetGCPercent(20)
	// Its memory and descriptors are nobody's to look at by /proc, and so are
	// those of its raw children until they executed something.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	for fd := fdControl; fd < fdsEnd; fd++ {
		unix.CloseOnExec(fd)
		// Go's poller waits for all of them, and no thread does. Those that
		// are not open answer EBADF.
		_ = unix.SetNonblock(fd, true)
	}
	m, err := begin()
	if err != nil {
		fmt.Fprintln(os.Stderr, Name+":", err)
		return 1
	}
	if err := m.run(); err != nil {
		_ = m.log.Write(logs.Stderr, []byte("nook: "+err.Error()+"\n"))
		return 1
	}
	return 0
}

func begin() (*monitor, error) {
	dir, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fdDir))
	if err != nil {
		return nil, fmt.Errorf("find the container: %w", err)
	}
	m := &monitor{
		container: containers.At(dir), root: rootOf(dir),
		stopped: make(chan struct{}), done: make(chan struct{}),
		events: make(chan events.Event, eventQueue), recorded: make(chan struct{}),
	}
	if m.config, err = m.container.Config(); err != nil {
		return nil, err
	}
	m.log = logs.NewWriter(dir, logs.DefaultLimits())
	if m.state, err = foretold(m.container); err != nil {
		return nil, err
	}
	m.hub.stdinOnce = m.config.StdinOnce
	m.hub.signal = m.signal
	return m, nil
}

// foretold is the state that the command wrote for us; zero: none.
func foretold(c containers.Container) (none containers.State, err error) {
	if !c.HasState() {
		return none, nil
	}
	state, err := c.State()
	if err != nil || !state.Starting {
		return none, nil //nolint:nilerr // ours takes its place
	}
	self, err := containers.Self()
	if err != nil || state.Monitor != self {
		return none, err
	}
	return state, nil
}

// run is the container from its first start to its last end.
func (m *monitor) run() error {
	// Its streams first: the command may send input at once.
	l := m.inherited()
	m.hub.feed(l.io)
	m.greetFirst()
	m.watchLeash()
	err := m.begun(l, os.NewFile(fdReport, "report"))
	if err != nil {
		return m.refused(l, err)
	}
	go m.record(m.state.Starting)
	for delay := firstDelay; ; {
		began := time.Now()
		code, err := m.live(l)
		if _, not := errors.AsType[notStarted](err); not {
			unlisten(m.state.Socket)
			return m.refused(l, err)
		}
		if err != nil {
			return err
		}
		if !m.wantedAgain(code) {
			return m.settle()
		}
		if time.Since(began) > steady {
			delay = firstDelay
		}
		if l = m.again(delay); l == nil {
			return m.settle()
		}
		delay = min(2*delay, longestDelay)
	}
}

// inherited is the life whose descriptors the command gave.
func (m *monitor) inherited() *life {
	l := &life{pid: firstChild, over: make(chan struct{})}
	if m.config.TTY {
		l.io = newTerminal(os.NewFile(fdTTY, "pid 1"))
		return l
	}
	var in *os.File
	if m.config.OpenStdin {
		in = os.NewFile(fdStdin, "stdin")
	}
	l.io = newStdio(in, os.NewFile(fdStdout, "stdout"), os.NewFile(fdStderr, "stderr"))
	return l
}

// StepState is the step of a report that no raw child makes: the state of a
// container that begins to run could not be written.
const StepState = ^uint32(0)

// notStarted is the report of an entrypoint that could not be started.
type notStarted struct{ raw.Report }

func (n notStarted) Error() string {
	return fmt.Sprintf("step %d: %s", n.Step, unix.ErrnoName(n.Errno))
}

// begun reads whether the entrypoint runs.
func (m *monitor) begun(_ *life, report *os.File) error {
	rep, refused, err := raw.ReadReport(report)
	_ = report.Close()
	if err == nil && refused {
		err = notStarted{rep}
	}
	return err
}

// live follows a run of the entrypoint to its end.
func (m *monitor) live(l *life) (code int, err error) {
	l.began = time.Now().UTC() // before its first line in the log
	m.hub.feed(l.io)
	// Who types the detach keys at the first output finds the container
	// running.
	pump := sync.OnceFunc(func() { l.io.pump(&m.hub, m.log) })
	if !m.config.TTY {
		pump()
	}
	// Who ended already is not told as running: a file less to write. But the
	// next run is, and nobody should take this one for the last.
	if m.config.Restart.Wanted() || !ended(l.pid) {
		if err := m.started(l); err != nil {
			return 0, err
		}
	} else {
		m.mu.Lock()
		if !m.state.Starting {
			m.state.Started = l.began
			m.event("start")
		}
		m.mu.Unlock()
	}
	pump()
	m.failure(m.log.Begin()) // a new file has its price: nobody waits for this one
	status, err := reap(l.pid)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	m.life = nil
	close(l.over)
	if m.isStopped() {
		m.hub.hurry()
	}
	m.mu.Unlock()
	m.hub.feed(nil)
	l.io.ended()
	l.io.pumped.Wait()
	l.io.close()
	m.pausing.Lock()
	if l.pauser != nil {
		_ = l.pauser.Close()
	}
	m.pausing.Unlock()
	return m.exited(status), nil
}

// started tells that the entrypoint runs, and lets others in.
func (m *monitor) started(l *life) error {
	var err error
	if l.host, err = hostPid(l.pid); err != nil {
		return err
	}
	m.mu.Lock()
	m.life = l // before anybody can ask something of it
	told := m.state.Starting
	first := told || m.state.Started.IsZero()
	if m.isStopped() { // by one who found nothing to end
		_ = unix.Kill(l.pid, unix.SIGKILL)
	}
	m.mu.Unlock()
	if err := m.attend(); err != nil {
		return err
	}
	err = m.write(func(s *containers.State) {
		s.Health = m.config.FirstHealth()
		s.Status, s.Pid, s.Error = containers.Running, l.host, ""
		s.Finished, s.ExitCode = time.Time{}, 0
		if !told {
			s.Started = l.began
		}
		s.Starting = false
	})
	if errno := unix.Errno(0); first && !m.config.Remove && errors.As(err, &errno) {
		// What runs without a state that says so, ps doesn't show. What is
		// removed at its end may have filled the disk itself.
		m.mu.Lock()
		m.life = nil
		m.mu.Unlock()
		_ = unix.Kill(l.pid, unix.SIGKILL)
		return notStarted{raw.Report{Step: StepState, Errno: errno}}
	}
	// Before whoever waits for it tells events of his own.
	if !told {
		m.eventNow("start")
	}
	m.hub.tell(frame.Started, struct{}{})
	if first && !m.config.Remove {
		go func() { m.failure(m.container.Sync()) }()
	}
	m.checkHealth(l)
	return nil
}

// attend makes the state, once it is written, name us and our socket. It is
// called by the one goroutine that follows the container.
func (m *monitor) attend() error {
	m.mu.Lock()
	there := m.state.Monitor.Pid != 0 && !m.state.Starting
	m.mu.Unlock()
	if there {
		return nil
	}
	self, err := containers.Self()
	if err != nil {
		return err
	}
	socket := m.listen(runtimeDir(os.Args))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Monitor, m.state.Socket = self, socket
	return nil
}

// update changes the state and writes it. One that fills the disk its state is
// to be written to goes on, as it would a moment later.
func (m *monitor) update(change func(*containers.State)) { _ = m.write(change) }

// write is update that tells whether it was written.
func (m *monitor) write(change func(*containers.State)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.state)
	// That it runs is void after a power cut, whatever the disk says.
	durable := atomicfile.Durability(bool(m.durable()) && !m.state.Status.Live())
	err := m.container.WriteState(m.state, durable)
	if err != nil {
		_ = m.log.Write(logs.Stderr, []byte("nook: "+err.Error()+"\n"))
	}
	return err
}

// exited tells the end of a run.
func (m *monitor) exited(status unix.WaitStatus) int {
	code := exitCode(status)
	m.mu.Lock()
	m.state.ExitCode, m.state.Finished, m.state.Pid = code, time.Now().UTC(), 0
	if m.state.Health != nil { // who doesn't run is not healthy (moby, daemon/health.go)
		h := *m.state.Health
		h.Status = containers.HealthUnhealthy
		m.state.Health = &h
	}
	m.mu.Unlock()
	m.event("die", "exitCode", fmt.Sprint(code))
	// The foreground command waits for our end too, so that it finds nothing
	// left; telling it now lets it get ready meanwhile.
	m.hub.tell(frame.Exit, ExitStatus{code})
	return code
}

// refused tells why the entrypoint does not run. The client may have another
// way to start the container, so its directory is left to it.
func (m *monitor) refused(l *life, why error) error {
	if _, err := reap(l.pid); err != nil {
		return err
	}
	l.io.close()
	_ = m.log.Close()
	var rep notStarted
	if !errors.As(why, &rep) {
		return why
	}
	var err error
	if !m.config.Remove {
		before, serr := m.container.State()
		if serr != nil || before.Status != containers.Exited {
			before = containers.State{Status: containers.Created}
		}
		before.ExitCode, before.Error = notStartedCode(rep.Errno), rep.Error()
		before.Pid, before.Monitor, before.Socket = 0, containers.Process{}, ""
		err = m.container.WriteState(before, m.durable())
	}
	if told := m.hub.tell(frame.Refused, rep.Report); !told && m.config.Remove {
		err = errors.Join(m.container.DropVolumes(m.config), m.container.Remove(m.config.Name))
	}
	m.hub.end()
	return err
}

// notStartedCode is docker's exit code of what could not be executed.
func notStartedCode(e unix.Errno) int {
	switch e {
	case unix.ENOENT, raw.ErrInterpreter:
		return 127
	case unix.EACCES, unix.ENOEXEC:
		return 126
	}
	return 125
}

// settle leaves the container as it will be found: with its last state, or,
// with --rm, not at all.
func (m *monitor) settle() error {
	m.endExecs()
	_ = m.log.Close()
	m.mu.Lock()
	remove := m.config.Remove && !m.keep
	m.state.Status, m.state.Pid, m.state.Monitor, m.state.Starting = containers.Exited, 0, containers.Process{}, false
	state, socket := m.state, m.state.Socket
	state.Socket = ""
	m.mu.Unlock()
	var err error
	if remove {
		err = errors.Join(m.container.DropVolumes(m.config), m.container.Remove(m.name()))
		m.event("destroy")
	} else {
		err = errors.Join(m.container.WriteState(state, m.durable()), m.container.Sync())
	}
	// Now nobody looks for it any more.
	unlisten(socket)
	close(m.done)
	m.answered()
	m.hub.end()
	m.lastEvents()
	return err
}

// name is the container's name now: it may have got another, with a record
// that took the place of the one we know.
func (m *monitor) name() string {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(m.container.Path, "config.json"), &st) != nil {
		return m.config.Name
	}
	m.naming.Lock()
	defer m.naming.Unlock()
	if st.Ino != m.named.ino || st.Ctim != m.named.changed {
		cfg, err := m.container.Config()
		if err != nil {
			return m.config.Name
		}
		m.named.name, m.named.ino, m.named.changed = cfg.Name, st.Ino, st.Ctim
	}
	return m.named.name
}

func (m *monitor) durable() atomicfile.Durability {
	return atomicfile.Durability(!m.config.Remove)
}

// ExitStatus is the payload of frame.Exit.
type ExitStatus struct {
	Code int `json:"code"`
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // our own small structs
		panic(err)
	}
	return data
}
