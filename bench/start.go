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

// contestant is one way to start a sandbox.
type contestant struct {
	name string
	note string // what it does less or more than nook
	// command is what is timed. round makes names that must differ.
	command func(round int) *exec.Cmd
	// ready is asked once before; its error takes the contestant out.
	ready func() error
	// done, if there is one, ends what the contestant keeps running.
	done func()
}

// starters are the contestants of the start, the floor first.
func starters(s settings) []contestant {
	rootfs := filepath.Join(s.base, "rootfs")
	own := filepath.Join(s.base, "user")
	if _, err := os.Stat(own); err != nil { // no setup stage: a plain user's run
		own = s.base
	}
	merged := filepath.Join(s.base, "merged")
	if _, err := os.Stat(filepath.Join(merged, "bin")); err != nil {
		merged = rootfs
	}
	list := []contestant{
		fixed("floor", "one C process, one id; the least it can cost",
			filepath.Join(s.base, "floor"), own, rootfs, "/bin/busybox", "true"),
		nookRun(s, own, "mapped"),
		nookRun(s, own, "single"),
		fixed("bwrap", "no overlay, no ids beyond one, no seccomp, no record",
			"bwrap", "--unshare-all", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "/bin/busybox", "true"),
		bundle("crun", own, merged, true),
		bundle("crun", own, merged, false),
		bundle("runc", own, merged, true),
		podman(s, own),
	}
	return list
}

func fixed(name, note string, argv ...string) contestant {
	c := contestant{name: name, note: note, command: func(int) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }}
	c.ready = func() error { return quietly(c.command(0)) }
	return c
}

func nookRun(s settings, own, ids string) contestant {
	env := append(os.Environ(), "NOOK_ROOT="+filepath.Join(own, "nook-"+ids), "NOOK_IDS="+ids)
	nook := func(args ...string) *exec.Cmd {
		cmd := exec.Command(s.nook, args...)
		cmd.Env = env
		return cmd
	}
	run := func(int) *exec.Cmd { return nook("run", "--rm", "--network", "none", "busybox", "true") }
	return contestant{
		name: "nook, " + ids, note: "overlay, seccomp, masked paths, a monitor, a record; `nook run --rm --network none busybox true`",
		command: run,
		ready: func() error {
			if err := quietly(nook("load", "-i", filepath.Join(s.base, "busybox.tar"))); err != nil {
				return err
			}
			return quietly(run(0))
		},
	}
}

// bundle is crun or runc with what `spec --rootless` makes. That spec shares the
// host's network; own adds the namespace that all others here have.
func bundle(name, own, rootfs string, network bool) contestant {
	dir := filepath.Join(own, "bundle-"+name)
	c := contestant{name: name, note: "overlay mounted before and not counted; a network namespace added to `spec --rootless`"}
	if !network {
		dir += "-hostnet"
		c.name += ", host network"
		c.note = "as `spec --rootless` has it"
	}
	c.command = func(round int) *exec.Cmd {
		return exec.Command(name, "--root", filepath.Join(own, "state-"+name), "run", "--bundle", dir, fmt.Sprintf("b%d", round))
	}
	c.ready = func() error {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		spec := exec.Command(name, "spec", "--rootless")
		spec.Dir = dir
		if err := quietly(spec); err != nil {
			return err
		}
		if err := editSpec(filepath.Join(dir, "config.json"), rootfs, network); err != nil {
			return err
		}
		return quietly(c.command(0))
	}
	return c
}

func editSpec(file, rootfs string, network bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	process, _ := spec["process"].(map[string]any)
	process["terminal"] = false
	process["args"] = []string{"/bin/busybox", "true"}
	spec["root"] = map[string]any{"path": rootfs, "readonly": false}
	linux, _ := spec["linux"].(map[string]any)
	if spaces, _ := linux["namespaces"].([]any); network {
		linux["namespaces"] = append(spaces, map[string]any{"type": "network"})
	}
	text, err = json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// podman runs from a warm store, its pause process already there.
func podman(s settings, own string) contestant {
	command := func(args ...string) *exec.Cmd {
		return exec.Command("podman", append([]string{"--root", filepath.Join(own, "podman"), "--runroot", filepath.Join(own, "run", "podman"),
			"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", "crun", "--events-backend", "none"}, args...)...)
	}
	run := func(int) *exec.Cmd {
		return command("run", "--rm", "--network", "none", "localhost/busybox", "/bin/busybox", "true")
	}
	return contestant{
		name: "podman", note: "warm: store on its own rootless overlay, pause process running; crun as its runtime",
		command: run,
		ready: func() error {
			tar := filepath.Join(own, "rootfs.tar")
			if err := quietly(exec.Command("tar", "-C", filepath.Join(s.base, "rootfs"), "-cf", tar, ".")); err != nil {
				return err
			}
			if err := quietly(command("import", tar, "localhost/busybox")); err != nil {
				return fmt.Errorf("%s", strings.TrimSpace(err.Error()))
			}
			return quietly(run(0))
		},
		done: endPause,
	}
}

// endPause ends the process that podman keeps to hold its user namespace.
func endPause() {
	text, err := os.ReadFile(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "libpod/tmp/pause.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	if err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
