package raw

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/raw/walk"
)

// start runs the program with a report pipe and waits for its end.
func start(t *testing.T, p *Program, flags uintptr) (unix.WaitStatus, *Error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid, err := p.Start(flags, int(w.Fd()))
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	rep, ok, err := ReadReport(r)
	if err != nil {
		t.Fatal(err)
	}
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		return ws, p.Error(rep)
	}
	return ws, nil
}

// shell adds the execution of a script.
func shell(p *Program, script string) {
	p.Exec("run sh", "/bin/sh", p.Strings([]string{"sh", "-c", script}), p.Strings([]string{"PATH=/bin:/usr/bin"}))
	p.Fail("run sh")
}

func TestStepsRunInOrder(t *testing.T) {
	p := New(DefaultSize)
	defer p.Close()
	p.Call("become another directory", unix.SYS_CHDIR, "/usr")
	p.Call("go on", unix.SYS_CHDIR, "bin")
	shell(p, `test "$(pwd -P)" = /usr/bin && exit 42`)
	ws, e := start(t, p, 0)
	if e != nil || ws.ExitStatus() != 42 {
		t.Fatalf("got status %v, report %v, want 42 and none", ws.ExitStatus(), e)
	}
}

func TestReportNamesTheStepAndTheErrno(t *testing.T) {
	p := New(DefaultSize)
	defer p.Close()
	p.Call("first", unix.SYS_CHDIR, "/")
	p.Call("enter nowhere", unix.SYS_CHDIR, "/nowhere/at/all")
	shell(p, "exit 0")
	ws, e := start(t, p, 0)
	if e == nil || e.Step != "enter nowhere" || !errors.Is(e, unix.ENOENT) || ws.ExitStatus() != walk.ExitStatus {
		t.Fatalf("got status %v, report %v", ws.ExitStatus(), e)
	}
}

func TestIgnoredErrorsGoOn(t *testing.T) {
	p := New(DefaultSize)
	defer p.Close()
	p.Call("a", unix.SYS_CHDIR, "/nowhere").Ignore(unix.EACCES, unix.ENOENT)
	p.Call("b", unix.SYS_CHDIR, "/nowhere").IgnoreAll()
	p.Call("c", unix.SYS_CHDIR, "/nowhere").Ignore(unix.EACCES)
	_, e := start(t, p, 0)
	if e == nil || e.Step != "c" {
		t.Fatalf("got %v, want a report of c", e)
	}
}

func TestOrTakesTheOtherWayOnlyOnError(t *testing.T) {
	for _, tt := range []struct{ try, want string }{{"/usr", "/usr/lib"}, {"/nowhere", "/etc"}} {
		p := New(DefaultSize)
		p.Or(func() {
			p.Call("try", unix.SYS_CHDIR, tt.try)
			p.Call("try on", unix.SYS_CHDIR, "lib")
		}, func() {
			p.Call("otherwise", unix.SYS_CHDIR, "/etc")
		})
		shell(p, `pwd | grep -qx "`+tt.want+`"`)
		if ws, e := start(t, p, 0); e != nil || ws.ExitStatus() != 0 {
			t.Errorf("try %s: status %d, report %v", tt.try, ws.ExitStatus(), e)
		}
		p.Close()
	}
}

func TestRegistersCarryResults(t *testing.T) {
	p := New(DefaultSize)
	defer p.Close()
	dir := p.Call("open", unix.SYS_OPENAT, unix.AT_FDCWD, "/usr", unix.O_PATH|unix.O_DIRECTORY, 0).Save()
	p.Call("enter", unix.SYS_FCHDIR, dir)
	shell(p, `test "$(pwd)" = /usr`)
	if ws, e := start(t, p, 0); e != nil || ws.ExitStatus() != 0 {
		t.Fatalf("got status %d, report %v", ws.ExitStatus(), e)
	}
}

func TestForkedChildRunsItsPart(t *testing.T) {
	p := New(DefaultSize)
	defer p.Close()
	part := p.Part()
	shell(part, "exit 7")
	pid := p.Fork("fork", 0, part).Save()
	status := p.Space(4)
	p.Call("wait", unix.SYS_WAIT4, pid, status, 0, 0)
	p.Call("tell", unix.SYS_WRITE, 1, "", 0)
	shell(p, "exit 8")
	ws, e := start(t, p, 0)
	if e != nil || ws.ExitStatus() != 8 {
		t.Fatalf("got status %d, report %v", ws.ExitStatus(), e)
	}
	if got := unix.WaitStatus(*(*uint32)(walk.Pointer(uintptr(status)))); got.ExitStatus() != 7 {
		t.Fatalf("the forked child ended with %d, want 7", got.ExitStatus())
	}
}

func TestExecSearchesCandidates(t *testing.T) {
	dir := t.TempDir()
	denied, noInterp, text := dir+"/denied", dir+"/nointerp", dir+"/text"
	for name, content := range map[string]string{denied: "", noInterp: "#!/nowhere/sh\n", text: "\x00\x01garbage"} {
		mode := os.FileMode(0o755)
		if name == denied {
			mode = 0o644
		}
		if err := os.WriteFile(name, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name       string
		candidates []string
		want       unix.Errno // 0: it ran
	}{
		{"second is there", []string{"/nowhere/true", "/bin/true"}, 0},
		{"none is there", []string{"/nowhere/true", "/bin/true/true"}, unix.ENOENT},
		{"denied, then there", []string{denied, "/bin/true"}, 0},
		{"denied, then not there", []string{denied, "/nowhere/true"}, unix.EACCES},
		{"a directory", []string{dir}, unix.EACCES},
		{"interpreter missing", []string{noInterp, "/bin/true"}, ErrInterpreter},
		{"not a program", []string{text}, unix.ENOEXEC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := New(DefaultSize)
			defer p.Close()
			argv := p.Strings([]string{"x"})
			for _, c := range tt.candidates {
				p.Exec("run "+c, c, argv, p.Strings(nil))
			}
			p.Fail("find x")
			_, e := start(t, p, 0)
			switch {
			case tt.want == 0 && e != nil:
				t.Errorf("got %v, want it to run", e)
			case tt.want != 0 && (e == nil || e.Errno != tt.want):
				t.Errorf("got %v, want errno %d", e, tt.want)
			}
		})
	}
}

func TestLatePartIsWrittenWhileTheChildWaits(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	repR, repW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := New(DefaultSize)
	defer p.Close()
	p.Wait("wait for the rest", int(r.Fd()))
	late := p.Late("the rest")
	pid, err := p.Start(0, int(repW.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	repW.Close()
	shell(late.Part(), "exit 9")
	if err := late.Seal(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if rep, ok, err := ReadReport(repR); ok || err != nil {
		t.Fatalf("got report %v, %v", p.Error(rep), err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 9 {
		t.Fatalf("got status %d, %v, want 9", ws.ExitStatus(), err)
	}
}

func TestWaitEndsWithTheWriter(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := New(DefaultSize)
	defer p.Close()
	p.Call("close the child's copy", unix.SYS_CLOSE, int(w.Fd()))
	p.Wait("wait", int(r.Fd()))
	shell(p, "exit 0")
	repR, repW, _ := os.Pipe()
	pid, err := p.Start(0, int(repW.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	repW.Close()
	w.Close()
	if rep, ok, err := ReadReport(repR); !ok || rep.Errno != unix.ECANCELED {
		t.Errorf("got report %v %v %v, want ECANCELED", rep, ok, err)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != walk.ExitStatus {
		t.Fatalf("got status %d, %v, want %d", ws.ExitStatus(), err, walk.ExitStatus)
	}
}

func TestTooBigIsAnErrorBeforeTheFork(t *testing.T) {
	p := New(4096)
	defer p.Close()
	p.Exec("x", "/bin/true", p.Strings([]string{strings.Repeat("a", 5000)}), 0)
	if _, err := p.Start(0, 2); !errors.Is(err, unix.E2BIG) {
		t.Fatalf("got %v, want E2BIG", err)
	}
}

// Many forks while other goroutines grow stacks and collect garbage: the child
// must never meet the runtime's state of the moment.
func TestForksUnderLoad(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	for range 4 {
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					grow(200)
					_ = make([]byte, 1<<16)
				}
			}
		}()
	}
	for range 100 {
		p := New(DefaultSize)
		shell(p, "exit 3")
		if ws, e := start(t, p, 0); e != nil || ws.ExitStatus() != 3 {
			t.Fatalf("got status %v, report %v", ws, e)
		}
		p.Close()
	}
}

func grow(n int) int {
	var pad [128]byte
	if n == 0 {
		return int(pad[0])
	}
	return grow(n-1) + int(pad[n%128])
}

func BenchmarkStartTrue(b *testing.B) {
	for range b.N {
		p := New(DefaultSize)
		p.Exec("true", "/bin/true", p.Strings([]string{"true"}), p.Strings(nil))
		pid, err := p.Start(0, 2)
		if err != nil {
			b.Fatal(err)
		}
		var ws unix.WaitStatus
		_, _ = unix.Wait4(pid, &ws, 0, nil)
		p.Close()
	}
}
