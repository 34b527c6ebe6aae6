// Package monitor is the process that owns a container: it keeps the
// container's standard streams, its log and its state, and serves whoever
// wants to attach, over the frames of internal/frame.
//
//	CLI -- clone NEWUSER|NEWPID --> monitor, raw -- clone NEW* --> pid 1
//	                                   | execve(/proc/self/exe)      | mounts ...
//	                                   v                             v
//	                                monitor, Go  <-- pipes, pty -- entrypoint
//
// The monitor is pid 1 of a pid namespace; the container's is nested in it.
// It has the container's user namespace and the host's mounts. It doesn't know
// images, and it decides nothing about what runs: that stands in config.json.
package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/containers/logs"
	"nook/internal/atomicfile"
	"nook/internal/frame"
	"nook/internal/raw"
)

// child is pid 1 of the container as the monitor counts: the first process
// that the first process of a pid namespace forks.
const child = 2

type monitor struct {
	container containers.Container
	config    *containers.Config
	state     containers.State
	log       *logs.Writer
	clients   clients
	io        *stdio
}

// Run is the monitor's life. It returns the exit status of the process.
func Run() int {
	// A monitor holds a few hundred kilobytes and waits: collect early, keep
	// little.
	debug.SetGCPercent(20)
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
	m := &monitor{container: containers.At(dir)}
	if m.config, err = m.container.Config(); err != nil {
		return nil, err
	}
	m.log = logs.NewWriter(dir, logs.DefaultLimits())
	m.io = openStdio(m.config, m.clients.taken)
	m.clients.input = m.io
	m.clients.add(os.NewFile(fdControl, "control"))
	return m, nil
}

func (m *monitor) run() error {
	report := os.NewFile(fdReport, "report")
	rep, refused, err := raw.ReadReport(report)
	_ = report.Close()
	if err != nil {
		return err
	}
	if refused {
		return m.refused(rep)
	}
	pumped := m.pump()
	// Who ended already is not told as running: a file less to write.
	if !ended() {
		if err := m.started(m.listen(runtimeDir(os.Args))); err != nil {
			return err
		}
	}
	status, err := reap()
	if err != nil {
		return err
	}
	m.io.ended()
	pumped.Wait()
	return m.ended(status)
}

// refused tells why the entrypoint does not run. The client may have another
// way to start the container, so its directory is left to it.
func (m *monitor) refused(rep raw.Report) error {
	if _, err := reap(); err != nil {
		return err
	}
	m.state = containers.State{Status: containers.Created, ExitCode: 125,
		Error: fmt.Sprintf("step %d: %s", rep.Step, unix.ErrnoName(rep.Errno))}
	_ = m.log.Close()
	var err error
	if !m.config.Remove {
		err = m.container.WriteState(m.state, m.durable())
	}
	if told := m.clients.tell(frame.Refused, rep); !told && m.config.Remove {
		err = m.container.Remove(m.config.Name)
	}
	m.clients.end()
	return err
}

func (m *monitor) started(socket string) error {
	self, err := containers.Self()
	if err != nil {
		return err
	}
	pid, err := hostPid(child)
	if err != nil {
		return err
	}
	m.state = containers.State{Status: containers.Running, Pid: pid, Monitor: self, Socket: socket, Started: time.Now().UTC()}
	// Our end would be the container's. One that fills the disk its state is to
	// be written to goes on, as it would a moment later.
	if err := m.container.WriteState(m.state, m.durable()); err != nil {
		_ = m.log.Write(logs.Stderr, []byte("nook: "+err.Error()+"\n"))
	}
	m.clients.tell(frame.Started, struct{}{})
	return nil
}

func (m *monitor) ended(status unix.WaitStatus) error {
	m.state.Status, m.state.Pid, m.state.Monitor = containers.Exited, 0, containers.Process{}
	m.state.Finished = time.Now().UTC()
	m.state.ExitCode = exitCode(status)
	// The foreground command waits for our end too, so that it finds nothing
	// left; telling it now lets it get ready meanwhile.
	m.clients.tell(frame.Exit, ExitStatus{m.state.ExitCode})
	err := m.settle()
	m.clients.end()
	return err
}

// settle leaves the container as it will be found: with its last state, or,
// with --rm, not at all.
func (m *monitor) settle() error {
	_ = m.log.Close()
	m.unlisten()
	if m.config.Remove {
		return m.container.Remove(m.config.Name)
	}
	return m.container.WriteState(m.state, m.durable())
}

func (m *monitor) durable() atomicfile.Durability {
	return atomicfile.Durability(!m.config.Remove)
}

// ExitStatus is the payload of frame.Exit.
type ExitStatus struct {
	Code int `json:"code"`
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// ended tells whether pid 1 of the container is a zombie already.
func ended() bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, child, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

// reap waits for pid 1 of the container: in Go's poller, by its pidfd, which
// is readable when the process has ended (pidfd_open(2)).
func reap() (unix.WaitStatus, error) {
	fd, err := unix.PidfdOpen(child, unix.PIDFD_NONBLOCK)
	if err != nil {
		return waitBlocking()
	}
	f := os.NewFile(uintptr(fd), "pid 1")
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("wait for pid 1: %w", err)
	}
	var status unix.WaitStatus
	var failure error
	err = conn.Read(func(uintptr) bool {
		for {
			var pid int
			pid, failure = unix.Wait4(child, &status, unix.WNOHANG, nil)
			if !errors.Is(failure, unix.EINTR) {
				return failure != nil || pid == child
			}
		}
	})
	if err = errors.Join(err, failure); err != nil {
		return 0, fmt.Errorf("wait for pid 1: %w", err)
	}
	return status, nil
}

// hostPid translates a pid of our namespace to the host's by the fdinfo of a
// pidfd, which counts as the procfs instance it is read from does
// (pidfd_open(2); kernel/fork.c, pidfd_show_fdinfo).
func hostPid(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return hostPidOfChild(), nil
	}
	defer unix.Close(fd)
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("read a pidfd's fdinfo: %w", err)
	}
	for line := range strings.Lines(string(info)) {
		var host int
		if n, _ := fmt.Sscanf(line, "Pid: %d", &host); n == 1 {
			return host, nil
		}
	}
	return 0, errors.New("read a pidfd's fdinfo: no Pid line")
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // our own small structs
		panic(err)
	}
	return data
}
