package confine

import (
	"fmt"
	"strconv"
	"strings"
)

// Cap is the number of a capability, as linux/capability.h counts them.
type Cap uint8

// The capabilities that DefaultCaps holds: docker's default set, in the
// kernel's order.
const (
	CapChown          Cap = 0
	CapDacOverride    Cap = 1
	CapFowner         Cap = 3
	CapFsetid         Cap = 4
	CapKill           Cap = 5
	CapSetgid         Cap = 6
	CapSetuid         Cap = 7
	CapSetpcap        Cap = 8
	CapNetBindService Cap = 10
	CapNetRaw         Cap = 13
	CapSysChroot      Cap = 18
	CapMknod          Cap = 27
	CapAuditWrite     Cap = 29
	CapSetfcap        Cap = 31
)

// DefaultCaps is what a container holds when nothing else is asked for:
// docker's default set, moby's daemon/pkg/oci/caps.DefaultCapabilities.
const DefaultCaps Caps = 1<<CapChown | 1<<CapDacOverride | 1<<CapFowner | 1<<CapFsetid |
	1<<CapKill | 1<<CapSetgid | 1<<CapSetuid | 1<<CapSetpcap | 1<<CapNetBindService |
	1<<CapNetRaw | 1<<CapSysChroot | 1<<CapMknod | 1<<CapAuditWrite | 1<<CapSetfcap

// Caps is a set of capabilities, bit n for capability n: the form of the Cap
// lines in /proc/PID/status.
type Caps uint64

// Has tells whether c is in the set.
func (s Caps) Has(c Cap) bool { return s>>c&1 == 1 }

// Names lists the set in the kernel's order, as CAP_CHOWN. A capability that is
// younger than this program is listed by its number, as capsh does.
func (s Caps) Names() []string {
	var names []string
	for c := Cap(0); c < 64; c++ {
		if s.Has(c) {
			names = append(names, c.String())
		}
	}
	return names
}

// String is Names with commas between, or "none".
func (s Caps) String() string {
	if s == 0 {
		return "none"
	}
	return strings.Join(s.Names(), ",")
}

// String is the name, as CAP_CHOWN, or the number when it has no name here.
func (c Cap) String() string {
	if int(c) < len(capNames) {
		return "CAP_" + capNames[c]
	}
	return strconv.Itoa(int(c))
}

// ParseCap reads a capability's name in any case, with or without CAP_.
func ParseCap(name string) (Cap, error) {
	bare := strings.ToUpper(name)
	bare = strings.TrimPrefix(bare, "CAP_")
	for i, known := range capNames {
		if known == bare {
			return Cap(i), nil
		}
	}
	return 0, fmt.Errorf("capability %q: no such name", name)
}

// AllNames lists every capability that has a name here, in the kernel's order.
func AllNames() []string { return Caps(1<<len(capNames) - 1).Names() }

// capNames is linux/capability.h up to Linux 6.18, each at its number. None was
// added since 5.9 (CAP_CHECKPOINT_RESTORE).
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
	"KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK",
	"IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
	"SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE",
	"SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
	"AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}
