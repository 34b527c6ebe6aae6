package processes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CommandLine is the command with its arguments, separated by blanks, and ""
// for one that has none, as a process that ended. What isn't printable is
// replaced: the container chose it, and terminals obey some of it.
func (p Process) CommandLine() string {
	f, err := os.Open(p.dir + "/cmdline")
	if err != nil {
		return ""
	}
	defer f.Close()
	const enough = 128 << 10
	text, err := io.ReadAll(io.LimitReader(f, enough))
	if err != nil {
		return ""
	}
	text = bytes.TrimRight(text, "\x00 ")
	return Printable(strings.ReplaceAll(string(text), "\x00", " "))
}

// Printable replaces control characters, and bytes that are no UTF-8, by
// question marks, as ps(1) does.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}

// IO is what the process read from and wrote to disks (proc_pid_io(5)). The
// owner of the container's user namespace may read it; EACCES says who else
// asks.
func (p Process) IO() (Traffic, error) {
	text, err := os.ReadFile(p.dir + "/io")
	if err != nil {
		return Traffic{}, fmt.Errorf("read what process %d did to disks: %w", p.Pid, err)
	}
	read, _ := parseFields(text, "read_bytes")
	written, _ := parseFields(text, "write_bytes")
	return Traffic{read, written}, nil
}

// Share is the process's memory in bytes where what several processes have is
// divided among them (Pss of /proc/PID/smaps_rollup): a sum of Resident counts
// a shared buffer once for each process. Where it can't be read, it is
// Resident.
func (p Process) Share() uint64 {
	text, err := os.ReadFile(p.dir + "/smaps_rollup")
	if err != nil {
		return p.Resident
	}
	kib, ok := parseFields(text, "Pss")
	if !ok {
		return p.Resident
	}
	return kib << 10
}

// Network is what the interfaces of the process's network namespace carried,
// without the loopback.
func (p Process) Network() (Traffic, error) {
	text, err := os.ReadFile(p.dir + "/net/dev")
	if err != nil {
		return Traffic{}, fmt.Errorf("read the network interfaces of process %d: %w", p.Pid, err)
	}
	return parseNetDev(text), nil
}

// Age is how long ago the process began.
func (p Process) Age(h Host) time.Duration {
	return max(0, h.Uptime-time.Duration(p.Start)*time.Second/TicksPerSecond)
}

// CPU is the time it ran.
func (p Process) CPU() time.Duration {
	return time.Duration(p.UserTime+p.SysTime) * time.Second / TicksPerSecond
}

// Host is what the numbers of a process are compared with.
type Host struct {
	Now    time.Time
	Uptime time.Duration // since boot, by the clock that Process.Start has
	Memory uint64        // bytes
}

// ReadHost asks the kernel.
func ReadHost() (Host, error) {
	var boot unix.Timespec
	var info unix.Sysinfo_t
	err := errors.Join(unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot), unix.Sysinfo(&info))
	if err != nil {
		return Host{}, fmt.Errorf("read the host's uptime and memory: %w", err)
	}
	return Host{time.Now(), time.Duration(boot.Nano()), info.Totalram * uint64(info.Unit)}, nil
}
