package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// debianPackages are beyond the smallest Debian: a setuid-free ping, whose
// postinst sets a file capability, and what sets it.
const debianPackages = "iputils-ping,libcap2-bin"

// Cache is the directory for what is expensive to make: NOOK_TEST_CACHE, or
// /var/tmp/nook-test-cache-UID. It outlives the run.
func Cache() (string, error) {
	dir := os.Getenv("NOOK_TEST_CACHE")
	if dir == "" {
		dir = "/var/tmp/nook-test-cache-" + strconv.Itoa(os.Geteuid())
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// DebianTar returns the path of a root filesystem of Debian bookworm as a tar
// file, not compressed, with numeric owners. The first call on a machine makes
// it with mmdebstrap from the machine's own package sources, in a user
// namespace unless root asks; others wait for it and find it.
func DebianTar() (string, error) {
	return debianTar("debian-bookworm-"+strings.ReplaceAll(debianPackages, ",", "-"), debianPackages)
}

// TrixieBuildahTar returns a Debian trixie with buildah 1.39 and git, as DebianTar does.
// Its packages come from the first mirror of the machine's own sources.
func TrixieBuildahTar() (string, error) {
	sources, err := aptSources()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(sources)
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(text)) {
		if strings.HasPrefix(word, "http") && strings.Contains(word, "/debian") && !strings.Contains(word, "snapshot") {
			return suiteTar("trixie", "deb "+word+" trixie main", "debian-trixie-buildah-git", "buildah,ca-certificates,crun,git,netavark")
		}
	}
	return "", fmt.Errorf("no mirror of Debian in %s", sources)
}

// debianTar is DebianTar with other packages. name is the file's in the cache.
func debianTar(name, packages string, options ...string) (string, error) {
	mirror, err := aptSources()
	if err != nil {
		return "", err
	}
	return suiteTar("bookworm", mirror, name, packages, options...)
}

// suiteTar is debianTar of any suite. mirror is a file or line of sources.
func suiteTar(suite, mirror, name, packages string, options ...string) (string, error) {
	base := name + ".tar"
	if len(options) > 0 { // with other options it is another tree
		base = fmt.Sprintf("%s-%.4x.tar", name, sha256.Sum256([]byte(strings.Join(options, "\n"))))
	}
	if made, ok := testUsers(base); ok {
		return made, nil
	}
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	name = filepath.Join(cache, base)
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	mode := "unshare"
	if os.Geteuid() == 0 {
		mode = "root"
	}
	made := name + ".part"
	args := append([]string{"--quiet", "--mode=" + mode, "--variant=minbase", "--format=tar", "--include=" + packages}, options...)
	cmd := exec.Command("mmdebstrap", append(args, suite, made, mirror)...)
	cmd.Dir = "/" // mmdebstrap's helpers look at the working directory
	// Its root is a sub-id, who can't enter a temporary directory of ours.
	cmd.Env = append(os.Environ(), "TMPDIR=/var/tmp")
	if err := run(cmd); err != nil {
		return "", errors.Join(err, os.RemoveAll(made))
	}
	return name, os.Rename(made, name)
}

// testUsers is what the test user made before root asks for the same.
func testUsers(base string) (name string, ok bool) {
	who, err := user.Lookup(TestUser)
	if err != nil || os.Geteuid() != 0 || os.Getenv("NOOK_TEST_CACHE") != "" {
		return "", false
	}
	name = filepath.Join("/var/tmp/nook-test-cache-"+who.Uid, base)
	_, err = os.Stat(name)
	return name, err == nil
}

// aptSources is the machine's own list of package sources.
func aptSources() (string, error) {
	for _, name := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", errors.New("no apt sources: neither debian.sources nor sources.list in /etc/apt")
}
