package main

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

// contestant is one way to do what a part times.
type contestant struct {
	name string
	note string // what it does less or more than nook
	// command is what is timed. round makes names that must differ.
	command func(round int) *exec.Cmd
	// clock is how it is timed; nil: from its start to its exit.
	clock func(*exec.Cmd) (time.Duration, error)
	// ready is asked once before; its error takes the contestant out.
	ready func() error
	// after, if there is one, tidies up after each round and isn't timed.
	after func(round int) error
	// done, if there is one, ends what the contestant keeps running.
	done func()
}

func startPart(s settings, w io.Writer) error {
	fmt.Fprintf(w, "## Start to exit of `busybox true`\n\n%d rounds after %d that don't count.\n\n", s.rounds, s.warmup)
	all := race(starters(s), s.warmup, s.rounds)
	table(w, all, "ratio to floor")
	atMost(w, "at most 2.5 times the floor", 2.5, over(all, "mapped", "nook, mapped", "floor"), over(all, "single", "nook, single", "floor"))
	atMost(w, "ahead of crun, as a ratio to it", 1, over(all, "mapped", "nook, mapped", "crun"), over(all, "single", "nook, single", "crun"))
	atLeast(w, "at least ten times faster than podman", 10, over(all, "mapped", "podman", "nook, mapped"), over(all, "single", "podman", "nook, single"))
	return nil
}

// starters are the contestants of the start, the floor first.
func starters(s settings) []contestant {
	rootfs := filepath.Join(s.base, "rootfs")
	return []contestant{
		fixed("floor", "one C process, one id; the least it can cost",
			filepath.Join(s.base, "floor"), s.own(), rootfs, "/bin/busybox", "true"),
		nookRun(newNook(s, "mapped")),
		nookRun(newNook(s, "single")),
		fixed("bwrap", "no overlay, no ids beyond one, no seccomp, no record",
			"bwrap", "--unshare-all", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "/bin/busybox", "true"),
		bundleRun(s, "crun", true),
		bundleRun(s, "crun", false),
		bundleRun(s, "runc", true),
		podmanRun(newPodman(s)),
	}
}

func fixed(name, note string, argv ...string) contestant {
	c := contestant{name: name, note: note, command: func(int) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }}
	c.ready = func() error { return quietly(c.command(0)) }
	return c
}

func nookRun(n nookRoot) contestant {
	run := func(int) *exec.Cmd { return n.command("run", "--rm", "--network", "none", "busybox", "true") }
	return contestant{
		name: "nook, " + n.ids, note: "overlay, seccomp, masked paths, a monitor, a record; `nook run --rm --network none busybox true`",
		command: run,
		ready: func() error {
			if err := n.load(); err != nil {
				return err
			}
			return quietly(run(0))
		},
	}
}

func bundleRun(s settings, runtime string, network bool) contestant {
	b := newBundle(s, runtime, network)
	c := contestant{name: runtime, note: "overlay mounted before and not counted; a network namespace added to `spec --rootless`"}
	if !network {
		c.name += ", host network"
		c.note = "as `spec --rootless` has it"
	}
	c.command = func(round int) *exec.Cmd { return b.command("run", "--bundle", b.dir, fmt.Sprintf("b%d", round)) }
	c.ready = func() error {
		if err := b.make(s, "true"); err != nil {
			return err
		}
		return quietly(c.command(0))
	}
	return c
}

// podmanRun is podman from a warm store, its pause process already there.
func podmanRun(p podmanStore) contestant {
	run := func(int) *exec.Cmd {
		return p.command("run", "--rm", "--network", "none", podmanImage, "/bin/busybox", "true")
	}
	return contestant{
		name: "podman", note: "warm: store on its own rootless overlay, pause process running; crun as its runtime",
		command: run,
		ready: func() error {
			if err := p.load(); err != nil {
				return err
			}
			return quietly(run(0))
		},
		done: endPause,
	}
}
