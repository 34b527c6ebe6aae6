//go:build !race

package raw

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/raw/walk"
)

// begunWith is a monitor that waits, with /bin/echo as a tool, offered.
func begunWith(t *testing.T, args ...string) *walk.Ahead {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	a := walk.Begin()
	if a == nil {
		t.Fatal("no monitor was begun")
	}
	said, err := unix.Dup(int(r.Fd()))
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	a.Said = said
	a.Run("/bin/sh", args, int(w.Fd()))
	walk.Offer(a)
	return a
}

func wait(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); err == nil {
			return ws
		} else if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// TestAhead: a monitor that was begun gets its program, in namespaces of its
// own and with the descriptors that were opened since; the tool ran.
func TestAhead(t *testing.T) {
	args := []string{"sh", "-c", "echo $0 >&2", "done"}
	begun := begunWith(t, args...)
	a := TakeAhead(func(pid int) [][]string {
		if pid != begun.Pid {
			t.Errorf("asked for pid %d, want %d", pid, begun.Pid)
		}
		return [][]string{append([]string{"/bin/sh"}, args...)}
	})
	if a == nil {
		t.Fatal("what was begun was not taken")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New(DefaultSize)
	defer p.Close()
	a.OwnDescriptors(p)
	a.Outlive(p)
	p.Call("write", unix.SYS_WRITE, int(w.Fd()), "here", len("here"))
	p.Call("see that it is pid 1", unix.SYS_KILL, 1, 0)
	p.Call("end", unix.SYS_EXIT_GROUP, 7)
	pid, err := a.Start(p, -1)
	if err != nil || pid != begun.Pid {
		t.Fatalf("got %d, %v", pid, err)
	}
	a.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got [8]byte
	if n, _ := r.Read(got[:]); string(got[:n]) != "here" {
		t.Errorf("got %q of its descriptor", got[:n])
	}
	if ws := wait(t, pid); ws.ExitStatus() != 7 {
		t.Errorf("it ended with %v, want its program's end", ws)
	}
	if ws := wait(t, a.Tools[0].Pid); ws.ExitStatus() != 0 {
		t.Errorf("the tool ended with %v", ws)
	}
	said := os.NewFile(uintptr(a.Said), "said")
	defer said.Close()
	if n, _ := said.Read(got[:]); string(got[:n]) != "done\n" {
		t.Errorf("the tool said %q", got[:n])
	}
	if TakeAhead(nil) != nil {
		t.Error("it was taken twice")
	}
}

// TestAheadOfNoUse: what was begun for other ids ends, with its tools.
func TestAheadOfNoUse(t *testing.T) {
	for name, wanted := range map[string][][]string{
		"single": nil,
		"others": {{"/bin/sh", "sh", "-c", "exec sleep 999"}},
		"more":   {{"/bin/sh", "sh", "-c", "exec sleep 1000"}, {"/bin/sh"}},
		"path":   {{"/usr/bin/sh", "sh", "-c", "exec sleep 1000"}},
	} {
		t.Run(name, func(t *testing.T) {
			begun := begunWith(t, "sh", "-c", "exec sleep 1000")
			if TakeAhead(func(int) [][]string { return wanted }) != nil {
				t.Error("it was taken")
			}
			for _, pid := range []int{begun.Pid, begun.Tools[0].Pid} {
				if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
					t.Errorf("process %d: %v, want its end", pid, err)
				}
			}
		})
	}
}
