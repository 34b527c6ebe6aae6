package engine

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nook/containers"
	"nook/containers/processes"
	"nook/internal/hint"
)

func titles(t *testing.T, args ...string) string {
	t.Helper()
	columns, err := psColumns(args)
	if err != nil {
		t.Errorf("%q: %v", args, err)
	}
	var out []string
	for _, c := range columns {
		out = append(out, c.title)
	}
	return strings.Join(out, " ")
}

func TestPsOptions(t *testing.T) {
	const full, bsd = "UID PID PPID C STIME TTY TIME CMD", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"
	for args, want := range map[string]string{
		"": full, "-ef": full, "-fe": full, "-e -f": full, "-A -f": full, "-f": full,
		"aux": bsd, "-aux": bsd, "axu": bsd, "u": bsd, "auxww": bsd, "a u x": bsd,
		"-e": "PID TTY TIME CMD", "ax": "PID TTY STAT TIME COMMAND",
		"-o pid,comm": "PID COMMAND", "-opid": "PID", "-eo pid,args": "PID COMMAND", "axo pid,cmd": "PID CMD",
		"o user,%cpu": "USER %CPU", "-o pid -o nlwp": "PID NLWP", "-ef -o pid": "PID",
	} {
		if got := titles(t, strings.Fields(args)...); got != want {
			t.Errorf("ps %s: got %q, want %q", args, got, want)
		}
		if got := titles(t, args); got != want {
			t.Errorf("ps %q as one: got %q, want %q", args, got, want)
		}
	}
	for _, args := range []string{"-p 1", "-u root", "-H", "--forest", "auxf", "-o", "-o nothing", "-o pid,,comm", "-o UID", "-o pid=X", "-", "1"} {
		if _, err := psColumns(strings.Fields(args)); err == nil || hint.Of(err) == "" {
			t.Errorf("ps %s: got %v, want it refused with a hint", args, err)
		}
	}
}

func TestPsValues(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.Local)
	s := &ps{host: processes.Host{Now: now, Uptime: 10000 * time.Hour, Memory: 1000 << 20}, users: map[int]string{77: "bob"}}
	began := func(ago time.Duration) uint64 {
		return uint64((s.host.Uptime - ago) / time.Second * processes.TicksPerSecond)
	}
	busy := processes.Process{
		Pid: 12, Parent: 11, Name: "sh\x1b", State: 'R', UID: 77, Group: 12, Session: 12, Front: 12, Nice: -5, Threads: 3,
		TTY: 34817, Start: began(90 * time.Minute), UserTime: 200000, SysTime: 70061, Size: 5 << 20, Resident: 123 << 20,
	}
	dead := processes.Process{Pid: 13, Name: "x", State: 'Z', UID: 4242424, Nice: 5, Threads: 1, Front: -1, Start: began(50 * time.Hour)}
	old := processes.Process{Pid: 14, State: 'S', Threads: 1, TTY: 1025, Start: began(5000 * time.Hour), Front: -1, Session: 1}
	for _, tc := range []struct {
		p               processes.Process
		columns, values string
	}{
		{busy, "pid,ppid,user,uid,comm,args", "12|11|bob|77|sh?|[sh?]"},
		{busy, "pcpu,pmem,rss,vsz,stat,tty", "50.0|12.3|125952|5120|R<sl+|pts/1"},
		{busy, "time,etime,stime,start_time,c,ni,nlwp,s", "00:45:00|01:30:00|10:30|10:30|50|-5|3|R"},
		{dead, "user,comm,args,stat,tty,stime,etime", "4242424|x <defunct>|[x] <defunct>|ZN|?|Feb28|2-02:00:00"},
		{old, "tty,stat,stime,etimes", "tty1|S|2025|18000000"},
	} {
		var got []string
		for name := range strings.SplitSeq(tc.columns, ",") {
			got = append(got, allColumns()[name].value(s, tc.p))
		}
		if strings.Join(got, "|") != tc.values {
			t.Errorf("%s: got %s, want %s", tc.columns, strings.Join(got, "|"), tc.values)
		}
	}
	if got := psTimeBSD(s, busy); got != "45:00" {
		t.Errorf("BSD's time: got %s, want 45:00", got)
	}
}

// TestTop asks of a container that runs.
func TestTop(t *testing.T) {
	e := loaded(t, "single", nil)
	id := detached(t, e, "sleep 1001 & sleep 1002 & wait")
	var got TopResult
	for len(got.Processes) < 3 {
		var err error
		if got, err = e.Top(t.Context(), id[:8], "-o", "pid,ppid,uid,args"); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"PID", "PPID", "UID", "COMMAND"}; !slices.Equal(got.Titles, want) {
		t.Errorf("got titles %q, want %q", got.Titles, want)
	}
	first := got.Processes[0]
	for i, row := range got.Processes {
		if i > 0 && row[1] != first[0] || row[2] != strconv.Itoa(os.Geteuid()) {
			t.Errorf("got %q, want a child of %s and of our own uid", row, first[0])
		}
	}
	if _, err := e.Top(t.Context(), id, "--forest"); hint.Of(err) == "" {
		t.Errorf("an option that nook doesn't have: got %v, want a hint", err)
	}
	if err := e.RemoveContainer(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Top(t.Context(), id); !errors.Is(err, containers.ErrNotFound) {
		t.Errorf("of a container that is gone: got %v", err)
	}
}

// detached starts a shell script in a container that is removed at the end.
func detached(t *testing.T, e *Engine, script string) string {
	t.Helper()
	id, err := e.RunDetached(t.Context(), RunOptions{Image: "busybox", Command: []string{"sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := e.RemoveContainer(context.WithoutCancel(t.Context()), id, RemoveOptions{Force: true})
		if err != nil && !errors.Is(err, containers.ErrNotFound) {
			t.Error(err)
		}
	})
	return id
}
