package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
)

// detachedPart times run -d until the command is back, which for nook and
// podman is when the entrypoint runs. The removal after each round isn't timed.
func detachedPart(s settings, w io.Writer) error {
	rounds := max(1, s.rounds/2) // podman's removals are long
	fmt.Fprintf(w, "## `run -d` of `busybox sleep`\n\nUntil the command is back. %d rounds after %d that don't count; the removal isn't timed.\n\n", rounds, s.warmup)
	all := race([]contestant{
		nookDetached(newNook(s, "mapped")), nookDetached(newNook(s, "single")), podmanDetached(newPodman(s)),
	}, s.warmup, rounds)
	table(w, all, "ratio to nook, mapped")
	atLeast(w, "at least ten times faster than podman", 10, over(all, "mapped", "podman", "nook, mapped"), over(all, "single", "podman", "nook, single"))
	return nil
}

func detachedName(round int) string { return "detached" + strconv.Itoa(round) }

func nookDetached(n nookRoot) contestant {
	return contestant{
		name: "nook, " + n.ids, note: "`nook run -d --network none busybox sleep " + sleepSeconds + "`",
		command: func(round int) *exec.Cmd { return n.idle(detachedName(round)) },
		after:   func(round int) error { return n.remove(detachedName(round)) },
		ready:   func() error { return tryDetached(n.load, n.idle, n.remove) },
	}
}

func podmanDetached(p podmanStore) contestant {
	return contestant{
		name: "podman", note: "the same, warm",
		command: func(round int) *exec.Cmd { return p.idle(detachedName(round)) },
		after:   func(round int) error { return p.remove(detachedName(round)) },
		ready:   func() error { return tryDetached(p.load, p.idle, p.remove) },
		done:    endPause,
	}
}

// tryDetached does once what is timed, and tells why it doesn't work.
func tryDetached(load func() error, idle func(string) *exec.Cmd, remove func(...string) error) error {
	if err := load(); err != nil {
		return err
	}
	name := detachedName(0)
	return errors.Join(quietly(idle(name)), remove(name))
}
