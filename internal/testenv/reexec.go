package testenv

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// How root's tests reach the unprivileged user:
//
//	go test (root)
//	  └─ pkg.test (root)         RunAsTestUser: makes the user, waits
//	       └─ pkg.test (nooktest)  a copy in a directory the user can enter;
//	                               runs the tests, its exit code is passed on
//
// The copy is needed because go test builds into a directory that only root
// can enter. The working directory is inherited, which needs no search
// permission on what is above it.

// RunAsTestUser runs the tests as an unprivileged user and exits with their
// code. Started by a user it runs them as they are. Started by root it makes
// TestUser and runs this test binary again as that one, with an environment of
// only HOME, PATH, TMPDIR, XDG_RUNTIME_DIR, the NOOK_ variables and what keep
// names. A fuzzing run stays root's: its workers speak through files of go
// test, and its targets are parsers.
func RunAsTestUser(m *testing.M, keep ...string) {
	os.Exit(AsTestUser(m, keep...))
}

// AsTestUser is RunAsTestUser for a TestMain that has to clean up: it returns
// the exit code.
func AsTestUser(m *testing.M, keep ...string) int {
	if !Drops() {
		return m.Run()
	}
	code, err := reexec(keep)
	if err != nil {
		fmt.Fprintf(os.Stderr, "testenv: run the tests as %s: %v\n", TestUser, err)
		return 1
	}
	return code
}

// Drops says whether AsTestUser will run the tests as another user than this
// process has, and not in it.
func Drops() bool { return os.Geteuid() == 0 && !stays() }

// stays says whether this run of the test binary runs no tests that need a user.
func stays() bool {
	for _, arg := range os.Args[1:] {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "test.fuzz" || name == "test.fuzzworker" || name == "test.list" {
			return true
		}
	}
	return false
}

func reexec(keep []string) (code int, err error) {
	who, err := MakeTestUser()
	if err != nil {
		return 0, err
	}
	base, err := os.MkdirTemp("/tmp", "nooktest-") // not $TMPDIR, which may be root's alone
	if err != nil {
		return 0, err
	}
	// Root removes it, so that what the test user's sub-ids own goes too.
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	if err := os.Chmod(base, 0o755); err != nil {
		return 0, err
	}
	h := handover{base: base, uid: atoi(who.Uid), gid: atoi(who.Gid)}
	if err := h.prepare(); err != nil {
		return 0, err
	}
	cmd := exec.Command(h.binary, h.args...)
	cmd.Dir = h.dir
	cmd.Env = environment(who, base, keep)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(h.uid), Gid: uint32(h.gid), Groups: []uint32{uint32(h.gid)}},
	}
	if code, err = wait(cmd); err != nil {
		return 0, err
	}
	return code, h.bringBack()
}

// wait runs cmd, passing on what go test sends at a time-out (SIGQUIT) and a
// person at a terminal (SIGINT, which the child gets on its own as well).
func wait(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(done)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	}
	return 0, err
}

// handover is what the test user is given: a copy of the test binary, owned
// directories, and flags whose files it can reach.
type handover struct {
	base     string
	uid, gid int

	binary string
	dir    string // "" is the working directory as it is
	args   []string
	back   map[string]string // file or directory of the child to where go test wants it
}

func (h *handover) prepare() error {
	for _, d := range []string{"run", "tmp", "out"} {
		dir := filepath.Join(h.base, d)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if err := os.Chown(dir, h.uid, h.gid); err != nil {
			return err
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	h.binary = filepath.Join(h.base, filepath.Base(exe))
	if err := copyFile(exe, h.binary, 0o755); err != nil {
		return err
	}
	h.translateFlags()
	return h.chooseDir()
}

// translateFlags points the flags that name a file of go test's own directory
// to one of the user's. The log of opened files is left out: it only serves the
// test cache, which these tests must not be answered from.
func (h *handover) translateFlags() {
	h.back = map[string]string{}
	for _, arg := range os.Args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.TrimLeft(name, "-") {
		case "test.testlogfile":
			continue
		case "test.coverprofile", "test.gocoverdir":
			own := filepath.Join(h.base, "out", strings.TrimLeft(name, "-"))
			if strings.HasSuffix(name, "dir") {
				_ = os.Mkdir(own, 0o700)
				_ = os.Chown(own, h.uid, h.gid)
			}
			h.back[own] = value
			arg = name + "=" + own
		case "test.outputdir":
			continue // the profiles' names are absolute now
		}
		h.args = append(h.args, arg)
	}
}

// chooseDir copies the package's directory when others can't enter it.
func (h *handover) chooseDir() error {
	info, err := os.Stat(".")
	if err != nil || info.Mode().Perm()&0o005 == 0o005 {
		return err
	}
	h.dir = filepath.Join(h.base, "package")
	if err := os.CopyFS(h.dir, os.DirFS(".")); err != nil {
		return err
	}
	return filepath.WalkDir(h.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, h.uid, h.gid)
	})
}

func (h *handover) bringBack() error {
	var errs []error
	for own, wanted := range h.back {
		info, err := os.Stat(own)
		switch {
		case os.IsNotExist(err):
		case err != nil:
			errs = append(errs, err)
		case info.IsDir():
			errs = append(errs, os.CopyFS(wanted, os.DirFS(own)))
		default:
			errs = append(errs, copyFile(own, wanted, 0o644))
		}
	}
	return errors.Join(errs...)
}

func environment(who *user.User, base string, keep []string) []string {
	env := []string{
		"HOME=" + who.HomeDir,
		"USER=" + who.Username,
		"LOGNAME=" + who.Username,
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"TMPDIR=" + filepath.Join(base, "tmp"),
		"XDG_RUNTIME_DIR=" + filepath.Join(base, "run"),
		"LANG=C.UTF-8",
	}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "NOOK_") || name == "CI" || name == "GORACE" || slices.Contains(keep, name) {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
