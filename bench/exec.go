package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// execPart times a command in a container that runs already.
func execPart(s settings, w io.Writer) error {
	fmt.Fprintf(w, "## `exec` of `/bin/busybox true` in a running container\n\n%d rounds after %d that don't count. nsenter enters the namespaces of the very container that nook's line is about.\n\n", s.rounds, s.warmup)
	mapped, single := newNook(s, "mapped"), newNook(s, "single")
	all := race([]contestant{
		nsenter(mapped), nookExec(mapped), nsenter(single), nookExec(single), crunExec(s), podmanExec(newPodman(s)),
	}, s.warmup, s.rounds)
	table(w, all, "ratio to nsenter, mapped")
	atMost(w, "at most three times nsenter into the same namespaces", 3,
		over(all, "mapped", "nook, mapped", "nsenter, mapped"), over(all, "single", "nook, single", "nsenter, single"))
	atLeast(w, "at least ten times faster than podman exec", 10, over(all, "mapped", "podman", "nook, mapped"), over(all, "single", "podman", "nook, single"))
	return nil
}

// target is the container that is entered.
const target = "target"

func nookExec(n nookRoot) contestant {
	command := func(int) *exec.Cmd { return n.command("exec", target, "/bin/busybox", "true") }
	return contestant{
		name: "nook, " + n.ids, note: "through the monitor; groups, capabilities, seccomp, an event; its output copied",
		command: command,
		ready:   func() error { return quietly(command(0)) },
		done:    func() { _ = n.remove(target) },
	}
}

// nsenter starts the container too: it stands before nookExec, and is taken
// out before it.
func nsenter(n nookRoot) contestant {
	c := contestant{
		name: "nsenter, " + n.ids, note: "no confinement, its own standard streams; `nsenter -U -m -u -i -n -p -C`",
	}
	var argv []string
	c.command = func(int) *exec.Cmd { return exec.Command("nsenter", argv...) }
	c.ready = func() error {
		if err := n.load(); err != nil {
			return err
		}
		if err := quietly(n.idle(target)); err != nil {
			return err
		}
		pid, err := n.command("inspect", "--format", "{{.State.Pid}}", target).Output()
		if err != nil {
			return fmt.Errorf("find the container's first process: %w", err)
		}
		argv = []string{"-t", strings.TrimSpace(string(pid)), "-U", "-m", "-u", "-i", "-n", "-p", "-C"}
		if n.ids == "single" {
			argv = append(argv, "--preserve-credentials") // setgroups(2) is denied there
		}
		argv = append(argv, "--", "/bin/busybox", "true")
		return quietly(c.command(0))
	}
	return c
}

func crunExec(s settings) contestant {
	b := newBundle(s, "crun", true)
	command := func(int) *exec.Cmd { return b.command("exec", target, "/bin/busybox", "true") }
	return contestant{
		name: "crun", note: "one id; no monitor, so its own standard streams",
		command: command,
		ready: func() error {
			if err := b.make(s, "sleep", sleepSeconds); err != nil {
				return err
			}
			if err := quietly(b.command("run", "--detach", "--bundle", b.dir, target)); err != nil {
				return err
			}
			return quietly(command(0))
		},
		done: func() { _ = quietly(b.command("delete", "-f", target)) },
	}
}

func podmanExec(p podmanStore) contestant {
	command := func(int) *exec.Cmd { return p.command("exec", target, "/bin/busybox", "true") }
	return contestant{
		name: "podman", note: "warm; crun as its runtime",
		command: command,
		ready: func() error {
			if err := p.load(); err != nil {
				return err
			}
			if err := quietly(p.idle(target)); err != nil {
				return err
			}
			return quietly(command(0))
		},
		done: func() {
			_ = p.remove(target)
			endPause()
		},
	}
}
