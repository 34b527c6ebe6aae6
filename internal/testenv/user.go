package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// TestUser is the login name of the user that RunAsTestUser makes. It stays on
// the machine for the next run; `userdel -r nooktest` removes it.
const TestUser = "nooktest"

// userLock is held while the user is made, since go test starts the tests of
// several packages at once.
const userLock = "/run/nooktest.lock"

// MakeTestUser returns the test user, made if it isn't there, with a home
// directory and 65536 subordinate uids and gids. Only root can make it.
func MakeTestUser() (*user.User, error) {
	lock, err := os.OpenFile(userLock, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", userLock, err)
	}
	if !hasUser(TestUser) {
		cmd := exec.Command("useradd", "--create-home", "--user-group", "--shell", "/bin/sh",
			"--comment", "tests of nook", TestUser)
		if err := run(cmd); err != nil {
			return nil, fmt.Errorf("make the user %s: %w", TestUser, err)
		}
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if err := giveSubids(file, TestUser); err != nil {
			return nil, err
		}
	}
	return user.Lookup(TestUser)
}

// hasUser reads /etc/passwd itself: os/user may answer from before useradd.
func hasUser(name string) bool {
	text, _ := os.ReadFile("/etc/passwd")
	return strings.HasPrefix(string(text), name+":") || strings.Contains(string(text), "\n"+name+":")
}

// giveSubids appends a range of 65536 ids above all others to a subid(5) file
// that has none for name. useradd does so too where /etc/login.defs says so.
func giveSubids(file, name string) error {
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	next := 100000
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		if f[0] == name {
			return nil
		}
		start, _ := strconv.Atoi(f[1])
		count, _ := strconv.Atoi(f[2])
		next = max(next, start+count)
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s:%d:65536\n", name, next); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
