package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// own is the directory that the measuring user may write to.
func (s settings) own() string {
	own := filepath.Join(s.base, "user")
	if _, err := os.Stat(own); err != nil { // no setup stage: a plain user's run
		return s.base
	}
	return own
}

// nookRoot is a data root of nook's with one kind of ids.
type nookRoot struct {
	s    settings
	root string
	ids  string
}

func newNook(s settings, ids string) nookRoot {
	return nookRoot{s: s, root: filepath.Join(s.own(), "nook-"+ids), ids: ids}
}

func (n nookRoot) command(args ...string) *exec.Cmd {
	cmd := exec.Command(n.s.nook, args...)
	cmd.Env = append(os.Environ(), "NOOK_ROOT="+n.root, "NOOK_IDS="+n.ids)
	return cmd
}

func (n nookRoot) load() error {
	return quietly(n.command("load", "-q", "-i", filepath.Join(n.s.base, "busybox.tar")))
}

// idle starts a container that sleeps.
func (n nookRoot) idle(name string) *exec.Cmd {
	return n.command("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", sleepSeconds)
}

// remove ends and removes containers.
func (n nookRoot) remove(names ...string) error {
	return quietly(n.command(append([]string{"rm", "-f"}, names...)...))
}

// sleepSeconds is how long idle containers would live if nobody removed them.
const sleepSeconds = "600"

// podmanStore is podman with a store of its own.
type podmanStore struct {
	s      settings
	root   string
	events string // logs -f waits for ever with none
}

func newPodman(s settings) podmanStore {
	return podmanStore{s, filepath.Join(s.own(), "podman"), "none"}
}

func (p podmanStore) command(args ...string) *exec.Cmd {
	return exec.Command("podman", append([]string{"--root", p.root, "--runroot", filepath.Join(p.s.own(), "run", "podman"),
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", "crun", "--events-backend", p.events}, args...)...)
}

// load fills the store, unless it is.
func (p podmanStore) load() error {
	if _, err := exec.LookPath("podman"); err != nil {
		return err
	}
	if quietly(p.command("image", "exists", podmanImage)) == nil {
		return nil
	}
	tar := filepath.Join(p.s.own(), "rootfs.tar")
	if err := quietly(exec.Command("tar", "-C", filepath.Join(p.s.base, "rootfs"), "-cf", tar, ".")); err != nil {
		return err
	}
	return quietly(p.command("import", tar, podmanImage))
}

const podmanImage = "localhost/busybox"

func (p podmanStore) idle(name string) *exec.Cmd {
	return p.command("run", "-d", "--name", name, "--network", "none", podmanImage, "/bin/busybox", "sleep", sleepSeconds)
}

func (p podmanStore) remove(names ...string) error {
	return quietly(p.command(append([]string{"rm", "-f", "-t", "0"}, names...)...))
}

// endPause ends the process that podman keeps to hold its user namespace.
func endPause() {
	text, err := os.ReadFile(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "libpod/tmp/pause.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// bundle is what crun and runc run: a directory with what `spec --rootless`
// makes. That spec shares the host's network; own adds the namespace that all
// others here have.
type bundle struct {
	runtime string // crun or runc
	dir     string
	state   string
	network bool
}

func newBundle(s settings, runtime string, network bool) bundle {
	b := bundle{runtime: runtime, dir: filepath.Join(s.own(), "bundle-"+runtime), state: filepath.Join(s.own(), "state-"+runtime), network: network}
	if !network {
		b.dir += "-hostnet"
	}
	return b
}

func (b bundle) command(args ...string) *exec.Cmd {
	return exec.Command(b.runtime, append([]string{"--root", b.state}, args...)...)
}

// make writes the bundle of a command in busybox.
func (b bundle) make(s settings, command ...string) error {
	rootfs := filepath.Join(s.base, "merged")
	if _, err := os.Stat(filepath.Join(rootfs, "bin")); err != nil {
		rootfs = filepath.Join(s.base, "rootfs")
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	spec := exec.Command(b.runtime, "spec", "--rootless")
	spec.Dir = b.dir
	if err := quietly(spec); err != nil {
		return err
	}
	return b.edit(rootfs, command)
}

func (b bundle) edit(rootfs string, command []string) error {
	file := filepath.Join(b.dir, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	process, _ := spec["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = append([]string{"/bin/busybox"}, command...)
	spec["root"] = map[string]any{"path": rootfs, "readonly": false}
	linux, _ := spec["linux"].(map[string]any)
	if spaces, _ := linux["namespaces"].([]any); b.network {
		linux["namespaces"] = append(spaces, map[string]any{"type": "network"})
	}
	text, err = json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}
