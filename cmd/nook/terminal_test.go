package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"nook/internal/testenv"
)

// openPTY returns both ends of a new pseudo-terminal.
func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, os.NewSyscallError("TIOCSPTLCK", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, os.NewSyscallError("TIOCGPTN", err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func needPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	testenv.Need(t, "pty", func() error {
		m, s, err := openPTY()
		if err == nil {
			m.Close()
			s.Close()
		}
		return err
	})
	master, slave, err := openPTY()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

func isRaw(t *testing.T, f *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) == 0
}

func TestTerminalIsRawAndRestoredAlsoByAPanic(t *testing.T) {
	_, slave := needPTY(t)
	tty := openTerminal(slave, slave)
	if !tty.input() {
		t.Fatal("a pseudo-terminal was not taken for one")
	}
	func() {
		defer func() { _ = recover() }()
		restore, err := tty.attach(true)
		if err != nil {
			t.Fatal(err)
		}
		defer restore()
		if !isRaw(t, slave) {
			t.Error("not raw while attached")
		}
		panic("in the middle")
	}()
	if isRaw(t, slave) {
		t.Error("still raw afterwards")
	}
	restore, err := tty.attach(false)
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	if isRaw(t, slave) {
		t.Error("raw without -i: ^C would be no signal")
	}
}

func TestTerminalTellsItsSize(t *testing.T) {
	_, slave := needPTY(t)
	set := func(rows, cols uint16) {
		if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	set(33, 101)
	// Standard output alone is a terminal: nook run -t img </dev/null
	tty := openTerminal(nil, slave)
	if tty == nil || tty.input() {
		t.Fatalf("got %+v, want a terminal without input", tty)
	}
	restore, err := tty.attach(false)
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	if rows, cols, err := tty.Size(); rows != 33 || cols != 101 || err != nil {
		t.Errorf("size %d×%d, %v; want 33×101", rows, cols, err)
	}
	set(40, 80)
	// The kernel sends the signal to a terminal's foreground processes; this
	// one is not the test's own terminal.
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	select {
	case <-tty.Resized():
	case <-time.After(time.Minute):
		t.Fatal("nobody told of the new size")
	}
	if rows, cols, _ := tty.Size(); rows != 40 || cols != 80 {
		t.Errorf("size %d×%d, want 40×80", rows, cols)
	}
}

func TestNoTerminal(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if tty := openTerminal(file, &shell{}); tty != nil || tty.input() {
		t.Errorf("/dev/null is a terminal: %+v", tty)
	}
}

func TestRunPutsTheTerminalBack(t *testing.T) {
	_, slave := needPTY(t)
	for _, inner := range []error{nil, fmt.Errorf("monitor: gone")} {
		raw := false
		f := &fake{err: inner}
		s := ttyShell(slave, f, func() { raw = isRaw(t, slave) })
		s.main([]string{"run", "-it", "img"})
		if f.streams.Terminal == nil || !raw {
			t.Errorf("terminal %v, raw during the run: %v", f.streams.Terminal, raw)
		}
		if isRaw(t, slave) {
			t.Errorf("still raw after the run ended with %v", inner)
		}
	}
	f := &fake{}
	ttyShell(slave, f, func() {}).main([]string{"run", "-i", "img"})
	if f.streams.Terminal != nil {
		t.Error("a terminal without -t")
	}
	if code := ttyShell(slave, f, nil).main([]string{"load"}); code != 125 || !term.IsTerminal(int(slave.Fd())) {
		t.Errorf("load from a terminal: exit %d, want 125", code)
	}
}
