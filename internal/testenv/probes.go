package testenv

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Busybox is where Debian's busybox-static puts its one binary. (/usr/bin/busybox
// is the same file on a merged /usr.)
const Busybox = "/bin/busybox"

// The probes. Each tries the thing once a process and keeps the answer; nil
// says that it works. The name in the comment is the one for Need and for
// NOOK_MUST_WORK.
var (
	// UserNS (userns): a user namespace with this user as its root.
	UserNS = sync.OnceValue(func() error { return inUserNS("true") })

	// Overlay (overlay): an overlay with userxattr mounted in a user namespace,
	// its upper directory in the temporary directory of the tests.
	Overlay = sync.OnceValue(func() error {
		return inScratch(`mkdir l u w m; echo lower >l/f
			mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr overlay m
			echo upper >m/f; test "$(cat l/f)" = lower; test "$(cat u/f)" = upper`)
	})

	// Tmpfs (tmpfs): a tmpfs mounted in a user namespace.
	Tmpfs = sync.OnceValue(func() error { return inScratch("mount -t tmpfs -o size=64k tmpfs . && mkdir d") })

	// Subids (subids): newuidmap and newgidmap give this user a range.
	Subids = sync.OnceValue(trySubids)

	// BusyboxStatic (busybox): a busybox that needs no other file.
	BusyboxStatic = sync.OnceValue(func() error {
		f, err := elf.Open(Busybox)
		if err != nil {
			return advise(err, "busybox-static")
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				return advise(fmt.Errorf("%s is linked dynamically", Busybox), "busybox-static")
			}
		}
		return run(exec.Command(Busybox, "true"))
	})

	// Mmdebstrap (mmdebstrap): the program that makes a Debian root filesystem.
	Mmdebstrap = Program("mmdebstrap", "--version")
	// Umoci (umoci): the image tool from Debian.
	Umoci = Program("umoci", "--version")
	// Skopeo (skopeo): the image copier from Debian.
	Skopeo = Program("skopeo", "--version")
	// Buildah (buildah): the image builder from Debian.
	Buildah = Program("buildah", "--version")
	// Podman (podman): it runs a container of this user's, as rootless as the
	// tests: with runc, the other runtime refusing some hosts.
	Podman = sync.OnceValue(tryPodman)
	// Git (git): what fetches the contexts of builds.
	Git = Program("git", "--version")
	// Zstd (zstd): the compressor's command.
	Zstd = Program("zstd", "--version")
	// Setcap (setcap): writes file capabilities. Package libcap2-bin.
	Setcap = sync.OnceValue(func() error {
		_, err := exec.LookPath("setcap")
		if err != nil {
			_, err = os.Stat("/usr/sbin/setcap")
		}
		return advise(err, "libcap2-bin")
	})

	// Root (root): these tests run as uid 0 of the host.
	Root = sync.OnceValue(func() error {
		if os.Geteuid() != 0 {
			return errors.New("not started by root")
		}
		return nil
	})
)

// Program is the probe of a command: it runs it once with args, which should
// make it print its version, and says which Debian package has it when it isn't
// there (the package of most bears the command's name).
func Program(name string, args ...string) func() error {
	return sync.OnceValue(func() error { return advise(run(exec.Command(name, args...)), name) })
}

func advise(err error, pkg string) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (apt-get install %s)", err, pkg)
	}
	return err
}

// run is cmd.Run with what the command said on standard error in the error.
func run(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// inUserNS runs a shell script as root of new user and mount namespaces.
func inUserNS(script string) error {
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return run(cmd)
}

// inScratch is inUserNS in an empty directory that is gone afterwards.
func inScratch(script string) error {
	dir, err := os.MkdirTemp("", "nook-probe-")
	if err != nil {
		return err
	}
	defer removeScratch(dir)
	return inUserNS("cd '" + dir + "'\n" + script)
}

// removeScratch removes what an overlay leaves too: its work/work has no mode
// bits at all.
func removeScratch(dir string) {
	_ = os.Chmod(filepath.Join(dir, "w", "work"), 0o700)
	_ = os.RemoveAll(dir)
}

// trySubids does nothing, as root of a user namespace with all of our ids.
func trySubids() error { return asMappedRoot("grep -q . /proc/self/uid_map") }

// subidRange finds the first range of me in a subid(5) file.
func subidRange(file string, me *user.User) (start, count string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) == 3 && (f[0] == me.Username || f[0] == me.Uid) {
			return f[1], f[2], nil
		}
	}
	return "", "", fmt.Errorf("%s has no range for %s", file, me.Username)
}

// tryPodman runs a container in buildah's user namespace, where podman leaves no
// process behind.
func tryPodman() error {
	for _, program := range []string{"podman", "runc", "buildah"} {
		if _, err := exec.LookPath(program); err != nil {
			return advise(err, program)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "p") // podman refuses paths of over 50 characters
	if err != nil {
		return err
	}
	defer func() { _ = RemoveAll(dir) }()
	cmd := exec.Command("timeout", "60", "buildah", "unshare", "sh", "-ec", `mkdir -p d/bin run; cp "$1" d/bin/busybox
		podman --root $PWD/root --runroot $PWD/run --storage-driver vfs --cgroup-manager cgroupfs --events-backend none \
			--runtime runc run --rm --network none --rootfs $PWD/d /bin/busybox true`, "sh", Busybox)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
	return run(cmd)
}
