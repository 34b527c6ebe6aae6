package confine

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDefaultCapsAreDockers(t *testing.T) {
	// The mask that every docker container shows as CapBnd.
	if got, want := DefaultCaps, Caps(0xa80425fb); got != want {
		t.Errorf("DefaultCaps = %#x, want %#x", uint64(got), uint64(want))
	}
	want := "CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_KILL,CAP_SETGID,CAP_SETUID,CAP_SETPCAP," +
		"CAP_NET_BIND_SERVICE,CAP_NET_RAW,CAP_SYS_CHROOT,CAP_MKNOD,CAP_AUDIT_WRITE,CAP_SETFCAP"
	if got := DefaultCaps.String(); got != want {
		t.Errorf("DefaultCaps.String() = %s\nwant %s", got, want)
	}
}

func TestCapNamesStandAtTheirNumbers(t *testing.T) {
	for name, number := range map[string]Cap{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
		"CAP_LINUX_IMMUTABLE": unix.CAP_LINUX_IMMUTABLE, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
		"CAP_IPC_OWNER": unix.CAP_IPC_OWNER, "CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE,
		"CAP_MKNOD": unix.CAP_MKNOD, "CAP_AUDIT_CONTROL": unix.CAP_AUDIT_CONTROL,
		"CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_SYSLOG": unix.CAP_SYSLOG,
		"CAP_AUDIT_READ": unix.CAP_AUDIT_READ, "CAP_BPF": unix.CAP_BPF,
		"CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, err := ParseCap(name); err != nil || got != number {
			t.Errorf("ParseCap(%s) = %d, %v; want %d", name, got, err, number)
		}
	}
	if got, want := len(AllNames()), unix.CAP_LAST_CAP+1; got != want {
		t.Errorf("AllNames has %d names, want %d", got, want)
	}
	for _, name := range AllNames() {
		if c, err := ParseCap(name); err != nil || c.String() != name {
			t.Errorf("ParseCap(%s) = %v, %v; want the same name back", name, c, err)
		}
	}
}

func TestParseCap(t *testing.T) {
	for _, tc := range []struct {
		name string
		want Cap
		ok   bool
	}{
		{"CAP_KILL", CapKill, true},
		{"KILL", CapKill, true},
		{"kill", CapKill, true},
		{"Cap_Kill", CapKill, true},
		{"net_bind_service", CapNetBindService, true},
		{"", 0, false},
		{"CAP_", 0, false},
		{"CAP_CAP_KILL", 0, false},
		{"ALL", 0, false},
		{" KILL", 0, false},
		{"5", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseCap(tc.name)
			if (err == nil) != tc.ok || got != tc.want {
				t.Errorf("ParseCap(%q) = %d, %v; want %d, ok %v", tc.name, got, err, tc.want, tc.ok)
			}
			if err != nil && !strings.Contains(err.Error(), "no such name") {
				t.Errorf("error %q does not say what is wrong", err)
			}
		})
	}
}

func TestCapsString(t *testing.T) {
	for _, tc := range []struct {
		set  Caps
		want []string
	}{
		{0, []string{"none"}},
		{1 << CapMknod, []string{"CAP_MKNOD"}},
		{1<<CapMknod | 1<<CapChown, []string{"CAP_CHOWN", "CAP_MKNOD"}},
		{1<<63 | 1<<40, []string{"CAP_CHECKPOINT_RESTORE", "63"}},
	} {
		if got := strings.Split(tc.set.String(), ","); !slices.Equal(got, tc.want) {
			t.Errorf("%#x: got %v, want %v", uint64(tc.set), got, tc.want)
		}
	}
}
