package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

// Status is where a container is in its life, in docker's words.
type Status string

// A container goes created, running, exited; start leads from exited to
// running again. A restart policy leads there by restarting.
const (
	Created    Status = "created"
	Running    Status = "running"
	Paused     Status = "paused"
	Restarting Status = "restarting"
	Exited     Status = "exited"
)

// Live tells whether a monitor owns the container.
func (s Status) Live() bool { return s == Running || s == Paused || s == Restarting }

// State is what a container is doing: state.json. It holds all that ps shows,
// and is replaced whole by the monitor, so readers take no lock.
type State struct {
	Version int     `json:"version"`
	Status  Status  `json:"status"`
	Pid     int     `json:"pid,omitempty"`    // of the entrypoint, on the host
	Monitor Process `json:"monitor,omitzero"` // who keeps it true
	// Socket is the monitor's control socket while it runs: "sock" beside the
	// record, a path in the runtime directory, or "" where none could be made.
	Socket   string    `json:"socket,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	ExitCode int       `json:"exitCode"`
	Error    string    `json:"error,omitempty"` // why it could not be started
	// Stopped: somebody asked for the end, so no restart policy undoes it.
	Stopped bool `json:"stopped,omitempty"`
	// Restarts counts those of the restart policy since the last start.
	Restarts int `json:"restarts,omitempty"`
	// Starting: the monitor was started and did not take over yet. Its socket
	// is still to come.
	Starting bool    `json:"starting,omitempty"`
	Health   *Health `json:"health,omitempty"` // nil without a health check
	// Lost: the monitor is gone without having told the end. State finds it
	// out, and then Status is Exited, whatever the file says.
	Lost bool `json:"-"`
}

// SocketBeside is a control socket that lies beside the record.
const SocketBeside = "sock"

// What a container's health may be.
const (
	HealthStarting  = "starting"
	HealthHealthy   = "healthy"
	HealthUnhealthy = "unhealthy"
)

// Health is what a health check found.
type Health struct {
	Status  string  `json:"status"`  // of the above
	Failing int     `json:"failing"` // checks that failed since the last that didn't
	Log     []Probe `json:"log"`     // the last five, oldest first
}

// Probe is one run of a health check.
type Probe struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"` // -1: it took too long
	Output   string    `json:"output"`   // its beginning
}

// Process names a process of this boot: a pid alone is used again.
type Process struct {
	Pid       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks after boot (proc_pid_stat(5), field 22)
	Boot      string `json:"boot"`      // /proc/sys/kernel/random/boot_id
}

// State reads the state. A container that was never started has none: it is
// created. A running state whose monitor is gone is told as exited, which is
// what it is.
func (c Container) State() (State, error) {
	var s State
	err := readJSON(filepath.Join(c.Path, "state.json"), &s)
	switch {
	case os.IsNotExist(err):
		return State{Version: StateVersion, Status: Created}, nil
	case err != nil:
		return s, fmt.Errorf("container %.12s: %w", c.ID, err)
	case s.Version > StateVersion:
		return s, hint.Errorf("use the nook that started it", "container %.12s: %w (version %d)", c.ID, ErrVersion, s.Version)
	}
	if s.Status.Live() && !s.Monitor.Alive() {
		const killed = 128 + 9 // its monitor's end is SIGKILL for the container
		s.Status, s.Pid, s.ExitCode, s.Lost = Exited, 0, killed, true
	}
	return s, nil
}

// WriteState replaces the state. Durable for a container that outlives its
// run.
func (c Container) WriteState(s State, d atomicfile.Durability) error {
	s.Version = StateVersion
	file := filepath.Join(c.Path, "state.json")
	err := atomicfile.WriteJSON(file, s, 0o600, d)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// A full disk has no block for a new file, but the old one has one.
		if overwrite(file, s) == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("container %.12s: %w", c.ID, err)
	}
	return nil
}

// overwrite replaces a file's content in place, in one write(2).
func overwrite(file string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if missing := int(st.Size()) - len(data); missing > 0 { // what was there is longer
		data = append(data, strings.Repeat(" ", missing)...)
	}
	_, err = f.WriteAt(data, 0)
	return err
}

// Alive tells whether the process still runs.
func (p Process) Alive() bool {
	if p.Pid <= 0 || p.Boot != bootID() {
		return false
	}
	start, err := startTime(strconv.Itoa(p.Pid))
	return err == nil && start == p.StartTime
}

// Identify names a process by its pid.
func Identify(pid int) (Process, error) {
	start, err := startTime(strconv.Itoa(pid))
	if err != nil {
		return Process{}, err
	}
	return Process{pid, start, bootID()}, nil
}

// Self names the calling process as the host's /proc counts it: inside a pid
// namespace getpid(2) tells another number.
func Self() (Process, error) {
	link, err := os.Readlink("/proc/self")
	if err != nil {
		return Process{}, fmt.Errorf("find our own pid: %w", err)
	}
	pid, err := strconv.Atoi(link)
	if err != nil {
		return Process{}, fmt.Errorf("find our own pid: %w", err)
	}
	start, err := startTime("self")
	if err != nil {
		return Process{}, err
	}
	return Process{pid, start, bootID()}, nil
}

func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// startTime reads field 22 of /proc/PID/stat; the second field, the command,
// may hold spaces and parentheses, so counting begins after its last one. A
// zombie, whom nobody has waited for yet, runs no more: ErrProcessDone.
func startTime(pid string) (uint64, error) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, fmt.Errorf("read the start time of %s: %w", pid, err)
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const startField = 22 - 3
	if len(fields) <= startField {
		return 0, fmt.Errorf("read the start time of %s: %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("read the start time of %s: %w", pid, os.ErrProcessDone)
	}
	return strconv.ParseUint(fields[startField], 10, 64)
}
