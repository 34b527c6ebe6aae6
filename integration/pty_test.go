package integration

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// openPty opens a pseudo-terminal of a size; see pty(7).
func openPty(rows, cols uint16) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	fail := func(what string, err error) (*os.File, *os.File, error) {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", what, err), master.Close())
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return fail("TIOCSPTLCK", err)
	}
	// TIOCGPTPEER opens the other end also where /dev/pts is another mount's.
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return fail("TIOCGPTPEER", errno)
	}
	slave = os.NewFile(peer, "pts")
	size := unix.Winsize{Row: rows, Col: cols}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &size); err != nil {
		_ = slave.Close()
		return fail("TIOCSWINSZ", err)
	}
	return master, slave, nil
}

// onPty starts cmd as the leader of a session on a new terminal, and returns
// the modes that the terminal had before. The caller reads the master and waits
// for cmd.
func onPty(cmd *exec.Cmd, rows, cols uint16) (master *os.File, before *unix.Termios, err error) {
	master, slave, err := openPty(rows, cols)
	if err != nil {
		return nil, nil, err
	}
	defer slave.Close()
	if before, err = termios(master); err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, master.Close())
	}
	return master, before, nil
}

// readPty reads until the last holder of the other end has closed it, which
// Linux tells as EIO.
func readPty(master *os.File) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.Copy(&b, master)
	if errors.Is(err, unix.EIO) {
		err = nil
	}
	return b.Bytes(), err
}

// readUntil reads until the terminal showed want.
func readUntil(master *os.File, want string) ([]byte, error) {
	var shown []byte
	for !bytes.Contains(shown, []byte(want)) {
		var b [1]byte
		if _, err := master.Read(b[:]); err != nil {
			return shown, fmt.Errorf("wait for %q on the terminal, which showed %q: %w", want, shown, err)
		}
		shown = append(shown, b[0])
	}
	return shown, nil
}

// cmdPty is the script's command pty. It checks too that the terminal's modes
// are at the end what they were at the beginning.
func cmdPty(ts *testscript.TestScript, neg bool, args []string) {
	f := flag.NewFlagSet("pty", flag.ContinueOnError)
	rows, cols := f.Uint("rows", 24, ""), f.Uint("cols", 80, "")
	send := f.String("send", "", "")
	await := f.String("wait", "", "")
	exits := f.Int("exits", 0, "")
	ts.Check(f.Parse(args))
	if neg || f.NArg() < 2 {
		ts.Fatalf("usage: pty [-rows N] [-cols N] [-wait TEXT] [-send TEXT] [-exits N] OUT COMMAND ARG...")
	}
	path := f.Arg(1)
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), ":") {
		if _, err := os.Stat(dir + "/" + path); err == nil && !strings.Contains(path, "/") {
			path = dir + "/" + path
		}
	}
	cmd := exec.Command(path, f.Args()[2:]...)
	h := ts.Value(keyHost{}).(*host)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(h.env(), "TERM=vt100")
	master, before, err := onPty(cmd, uint16(*rows), uint16(*cols))
	ts.Check(err)
	defer master.Close()
	ts.Check(master.SetDeadline(deadline()))
	early, err := readUntil(master, *await)
	ts.Check(err)
	text, err := strconv.Unquote(`"` + *send + `"`) // \n, \x03 and so on
	ts.Check(err)
	_, err = master.WriteString(text)
	ts.Check(err)
	shown, readErr := readPty(master)
	shown = append(early, shown...)
	if readErr != nil {
		_ = cmd.Process.Kill()
	}
	waitErr := cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs(f.Arg(0)), bytes.ReplaceAll(shown, []byte("\r\n"), []byte("\n")), 0o644))
	if readErr != nil {
		ts.Fatalf("read the terminal: %v; it showed %q", readErr, shown)
	}
	if got := cmd.ProcessState.ExitCode(); got != *exits {
		ts.Fatalf("exits with %d (%v), want %d; the terminal showed %q", got, waitErr, *exits, shown)
	}
	after, err := termios(master)
	ts.Check(err)
	if *before != *after {
		ts.Fatalf("the terminal's modes are %+v, were %+v", *after, *before)
	}
}

// termios reads the terminal's modes. (File.Fd would take the file's deadlines away.)
func termios(f *os.File) (modes *unix.Termios, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	wrong := conn.Control(func(fd uintptr) { modes, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
	return modes, errors.Join(wrong, err)
}

// deadline bounds a terminal that never says what is waited for.
func deadline() time.Time { return time.Now().Add(patience) }
