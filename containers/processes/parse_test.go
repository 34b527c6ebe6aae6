package processes

import (
	"slices"
	"strings"
	"testing"
)

// tail is what follows the name in a line of a shell that waits.
const tail = " S 7852 7858 7850 34817 7860 4194304 98 5 0 0 250 50 30 20 20 -5 3 0 1202707 3133440 380 18446744073709551615 94868325961728 94868325981609 140728427505776 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 94868325997616 94868325999232 94868654829568 140728427514552 140728427514572 140728427514572 140728427515883 0\n"

func TestParseStat(t *testing.T) {
	want := Process{
		Pid: 7858, Parent: 7852, State: 'S', Group: 7858, Session: 7850, TTY: 34817, Front: 7860,
		UserTime: 250, SysTime: 50, ChildTime: 50, Nice: -5, Threads: 3, Start: 1202707,
		Size: 3133440, Resident: 380 * 4096,
	}
	for _, name := range []string{"sh", "", ") (", "a) R 1 (b", "two\nlines", "(((", ")))", "\xff\x00"} {
		want.Name = name
		got, ok := parseStat([]byte("7858 (" + name + ")" + tail))
		if !ok || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", name, got, ok, want)
		}
	}
}

func TestParseStatRefuses(t *testing.T) {
	for _, text := range []string{
		"", "\n", "1", "1 (sh", "1 sh) S 1", "x (sh)" + tail, "1 (sh) S 0 1 1",
		"1 (sh)" + strings.Replace(tail, "7852", "parent", 1), ")(",
	} {
		if got, ok := parseStat([]byte(text)); ok {
			t.Errorf("%q: got %+v, want it refused", text, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const head = "Name:\tsh\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7858\nNgid:\t0\nPid:\t7858\nPPid:\t7852\nTracerPid:\t0\n"
	for name, tc := range map[string]struct {
		text string
		uid  int
		ids  []int // nil: refused
	}{
		"host":        {head + "Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nNStgid:\t7858\nNSpid:\t7858\nNSpgid:\t7858\n", 0, []int{7858}},
		"container":   {head + "Uid:\t1000\t100999\t100999\t100999\nNSpid:\t7858\t4\t1\n", 100999, []int{7858, 4, 1}},
		"no NSpid":    {head + "Uid:\t0\t0\t0\t0\n", 0, nil},
		"no Uid":      {head + "NSpid:\t7858\n", 0, nil},
		"empty NSpid": {head + "Uid:\t0\t0\t0\t0\nNSpid:\t\n", 0, nil},
		"reaped":      {head + "Uid:\t0\t0\t0\t0\nNSpid:\t0\t0\t0\n", 0, nil},
		"no number":   {head + "Uid:\t0\t0\t0\t0\nNSpid:\t1\tx\n", 0, nil},
		"short":       {"Uid:\t0\n", 0, nil},
		"nothing":     {"", 0, nil},
	} {
		uid, ids, ok := parseStatus([]byte(tc.text))
		if ok != (tc.ids != nil) || ok && (uid != tc.uid || !slices.Equal(ids, tc.ids)) {
			t.Errorf("%s: got uid %d, ids %v, %v, want %d, %v", name, uid, ids, ok, tc.uid, tc.ids)
		}
	}
}

func TestParseNetDev(t *testing.T) {
	const head = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     999      11    0    0    0     0          0         0      999      11    0    0    0     0       0          0
`
	for text, want := range map[string]Traffic{
		"":   {},
		head: {},
		head + "  eth0:    5000      11    0    0    0     0          0         0      700      11    0    0    0     0       0          0\n" +
			"eth1:1 2 3 4 5 6 7 8 18446744073709550915 10 11 12 13 14 15 16\n": {5001, 18446744073709551615},
		"eth0: x 1 1 1 1 1 1 1 1 1\neth1: 1\n": {},
	} {
		if got := parseNetDev([]byte(text)); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

func TestParseFields(t *testing.T) {
	const io = "rchar: 7\nwchar: 8\nread_bytes: 4096\nwrite_bytes: 0\ncancelled_write_bytes: 5\n"
	const rollup = "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:    900 kB\nPss:    350 kB\nPss_Dirty:    1 kB\n"
	for _, tc := range []struct {
		text, name string
		want       uint64
		ok         bool
	}{
		{io, "read_bytes", 4096, true}, {io, "write_bytes", 0, true}, {io, "bytes", 0, false},
		{rollup, "Pss", 350, true}, {"Pss:\n", "Pss", 0, false}, {"Pss: x\n", "Pss", 0, false}, {"", "Pss", 0, false},
	} {
		if got, ok := parseFields([]byte(tc.text), tc.name); got != tc.want || ok != tc.ok {
			t.Errorf("%s of %q: got %d, %v, want %d, %v", tc.name, tc.text, got, ok, tc.want, tc.ok)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "sh -c x": "sh -c x", "grün": "grün",
		"a\x1b[2Jb\n\tc\x7f": "a?[2Jb??c?", "\xff\u009b\u2028": "???",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzParse: what a process writes into its own name never hides the numbers.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"sh", ") (", "\n"} {
		f.Add([]byte(name))
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		got, ok := parseStat([]byte("7 (" + string(name) + ")" + tail))
		if !ok || got.Name != string(name) || got.Parent != 7852 {
			t.Errorf("%q: got %+v, %v", name, got, ok)
		}
		_, _ = parseStat(name)
		_, _, _ = parseStatus(name)
		_ = parseNetDev(name)
	})
}
