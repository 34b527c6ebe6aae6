package rootfs

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
	"nook/internal/testenv"
	"nook/namespaces"
)

func TestMain(m *testing.M) { testenv.RunAsTestUser(m) }

// A box is a root file system with one layer, which tests change before they
// enter it.
type box struct {
	t     *testing.T
	root  *Root
	lower string // the layer's directory
	dir   string // all that the test made
	// before is run in the new namespaces, ahead of Mount.
	before func(p *raw.Program)
	// masked covers a part of /proc in an outer pair of namespaces, so that a
	// new instance of it can't be mounted.
	masked bool
}

func newBox(t *testing.T) *box {
	t.Helper()
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "overlay", testenv.Overlay)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	// t.TempDir can't remove what overlayfs leaves in its work directory.
	dir, err := os.MkdirTemp("", "rootfs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("chmod", "-R", "u+rwx", dir).Run()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b := &box{t: t, dir: dir, lower: filepath.Join(dir, "lower")}
	b.mkdir("lower/bin", "upper", "work", "mnt")
	b.busybox(filepath.Join(b.lower, "bin"))
	b.root = &Root{
		Kind: Overlay, Dir: filepath.Join(dir, "mnt"),
		Lowers: []Dir{b.place("lower")}, Upper: b.place("upper"), Work: b.place("work"),
		OwnNet: true, TTYGroup: -1, ShmSize: 1 << 20,
		Exists: func(path string) bool { return unix.Access(path, unix.F_OK) == nil },
	}
	return b
}

func (b *box) mkdir(names ...string) {
	b.t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(b.dir, name), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *box) write(name, text string) {
	b.t.Helper()
	b.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// busybox puts the shell and some applets into a directory.
func (b *box) busybox(dir string) {
	b.t.Helper()
	data, err := os.ReadFile(testenv.Busybox)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox"), data, 0o755); err != nil {
		b.t.Fatal(err)
	}
	for _, applet := range strings.Fields("sh ls cat touch mkdir readlink stat grep mount wc find test id head") {
		if err := os.Symlink("busybox", filepath.Join(dir, applet)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// place gives a directory of the test a descriptor, of three digits as the
// engine's are.
func (b *box) place(name string) Dir {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(fd)
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { unix.Close(high) })
	return Dir{Path: path, FD: high}
}

// run enters the root, runs a shell script in it and gives what it printed. A
// step that met an error is the error.
func (b *box) run(script string) (string, error) {
	b.t.Helper()
	out, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	report, reportW, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer report.Close()
	p := raw.New(raw.DefaultSize * 4)
	defer p.Close()
	b.program(p, int(w.Fd()), script)
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID)
	if !b.masked {
		flags |= unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET
	}
	pid, err := p.Start(flags, int(reportW.Fd()))
	w.Close()
	reportW.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	rep, refused, err := raw.ReadReport(report)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := io.ReadAll(out)
	if err != nil {
		b.t.Fatal(err)
	}
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if refused {
		return string(text), p.Error(rep)
	}
	return string(text), nil
}

func (b *box) program(p *raw.Program, out int, script string) {
	ids := namespaces.IDs{
		Mode: namespaces.Single,
		UIDs: []namespaces.Range{{Outside: uint32(os.Getuid()), Count: 1}},
		GIDs: []namespaces.Range{{Outside: uint32(os.Getgid()), Count: 1}},
	}
	ids.MapSelf(p)
	if b.masked {
		outer := p
		outer.Call("mount the outer proc", unix.SYS_MOUNT, "proc", "/proc", "proc", 0, 0)
		outer.Call("mask a part of it", unix.SYS_MOUNT, "tmpfs", "/proc/irq", "tmpfs", 0, 0)
		p = outer.Part()
		pid := outer.Fork("fork", unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET|unix.CLONE_NEWIPC, p0(p, b, out, script)).Save()
		outer.Call("wait", unix.SYS_WAIT4, pid, 0, 0, 0)
		outer.Call("end", unix.SYS_EXIT_GROUP, 0)
		return
	}
	b.inner(p, out, script)
}

// p0 is the inner program of a masked box: its one id is the outer's 0.
func p0(p *raw.Program, b *box, out int, script string) *raw.Program {
	one := []namespaces.Range{{Count: 1}}
	namespaces.IDs{Mode: namespaces.Single, UIDs: one, GIDs: one}.MapSelf(p)
	b.inner(p, out, script)
	return p
}

// inner are the steps in the order of pid 1.
func (b *box) inner(p *raw.Program, out int, script string) {
	if b.before != nil {
		b.before(p)
	}
	for fd := 1; fd <= 2; fd++ {
		p.Call("place the output", unix.SYS_DUP3, out, fd, 0)
	}
	b.root.Mount(p)
	b.root.Enter(p)
	b.root.Populate(p)
	b.root.Mask(p)
	b.root.Leave(p)
	b.root.EnterWorkingDir(p)
	p.Exec("exec", "/bin/sh", p.Strings([]string{"sh", "-c", script}), p.Strings([]string{"PATH=/bin"}))
	p.Fail("exec")
}

// mustRun is run for what has to work.
func (b *box) mustRun(script string) string {
	b.t.Helper()
	out, err := b.run(script)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	return out
}
