package raw

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nook/internal/raw/walk"
)

// ways runs a test with children that share our memory and with those that
// have a copy.
func ways(t *testing.T, test func(t *testing.T, share bool)) {
	if !walk.RaceDetector {
		t.Run("shared", func(t *testing.T) { test(t, true) })
	}
	t.Run("copied", func(t *testing.T) { test(t, false) })
}

func TestMemoryIsSharedWhenAsked(t *testing.T) {
	ways(t, func(t *testing.T, share bool) {
		p := New(DefaultSize)
		defer p.Close()
		p.shares = share
		// prlimit(2) writes 16 bytes to where we say: here, our own memory.
		ours, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Munmap(ours) }()
		p.Call("write", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, 0, addressOf(ours))
		p.Call("end", unix.SYS_EXIT_GROUP, 9)
		ws, e := start(t, p, 0)
		if e != nil || ws.ExitStatus() != 9 {
			t.Fatalf("got status %v, report %v", ws.ExitStatus(), e)
		}
		if wrote := ours[0]|ours[1]|ours[2] != 0; wrote != share {
			t.Errorf("the child wrote to our memory: %v", wrote)
		}
	})
}

func TestChildrenOfChildren(t *testing.T) {
	ways(t, func(t *testing.T, share bool) {
		p := New(DefaultSize)
		defer p.Close()
		p.shares = share
		inner, innermost := p.Part(), p.Part()
		innermost.Call("end", unix.SYS_EXIT_GROUP, 5)
		wait := func(p *Program, pid Reg, want uint64) {
			// siginfo_t: si_status is at 24.
			info := p.Space(128)
			p.Call("wait", unix.SYS_WAITID, unix.P_PID, pid, info, unix.WEXITED, 0)
			p.Same("see the status", info+24, want)
		}
		pid := inner.Fork("fork again", 0, innermost).Save()
		wait(inner, pid, 5)
		inner.Call("end", unix.SYS_EXIT_GROUP, 6)
		word := p.Space(8)
		outer := p.ForkTelling("fork", unix.CLONE_PARENT_SETTID, word, inner).Save()
		wait(p, outer, 6)
		p.Call("end", unix.SYS_EXIT_GROUP, 7)
		if ws, e := start(t, p, 0); e != nil || ws.ExitStatus() != 7 {
			t.Fatalf("got status %v, report %v, want 7", ws.ExitStatus(), e)
		}
		if *p.Int32(word) <= 0 {
			t.Error("the child's pid was not told")
		}
	})
}

func TestSignalsAreDefaultsInTheChild(t *testing.T) {
	ways(t, func(t *testing.T, share bool) {
		p := New(DefaultSize)
		defer p.Close()
		p.shares = share
		pid := p.Call("who am I", unix.SYS_GETPID).Save()
		p.Call("signal myself", unix.SYS_KILL, pid, int(unix.SIGUSR1))
		p.Call("end", unix.SYS_EXIT_GROUP, 0)
		if ws, e := start(t, p, 0); e != nil || !ws.Signaled() || ws.Signal() != unix.SIGUSR1 {
			t.Fatalf("got status %#x, report %v, want the end by SIGUSR1", ws, e)
		}
	})
}

func TestCloseLeavesWhatAChildWalks(t *testing.T) {
	ways(t, func(t *testing.T, share bool) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p := New(DefaultSize)
		p.shares = share
		inner := p.Part()
		inner.Wait("wait", int(r.Fd()))
		inner.Call("end", unix.SYS_EXIT_GROUP, 0)
		p.Fork("fork", 0, inner)
		p.Wait("wait", int(r.Fd()))
		p.Call("end", unix.SYS_EXIT_GROUP, 42)
		pid, err := p.Start(0, 2)
		if err != nil {
			t.Fatal(err)
		}
		mem := p.arena.mem
		p.Close()
		if _, err := w.Write([]byte{1, 1}); err != nil {
			t.Fatal(err)
		}
		w.Close()
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 42 {
			t.Errorf("got %#x, %v, want the end by 42", ws, err)
		}
		if share {
			_ = unix.Munmap(mem)
		}
	})
}

func TestCloseGivesMemoryBack(t *testing.T) {
	p := New(DefaultSize)
	p.Call("end", unix.SYS_EXIT_GROUP, 1)
	if _, e := start(t, p, 0); e != nil {
		t.Fatal(e)
	}
	at := addressOf(p.arena.mem)
	p.Close()
	// mincore(2): ENOMEM for what is not mapped.
	var vec [1]byte
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(at), 4096, uintptr(unsafe.Pointer(&vec)))
	if errno != unix.ENOMEM {
		t.Errorf("the memory is mapped still: %v", errno)
	}
}
