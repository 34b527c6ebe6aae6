package main

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
)

// listPart times ps -a over containers that ended, each of which really ran.
func listPart(s settings, w io.Writer) error {
	counts, peers := [3]int{100, 1000, 3000}, 100
	if s.quick {
		counts, peers = [3]int{5, 20, 60}, 3
	}
	rounds := max(1, s.rounds/2)
	fmt.Fprintf(w, "## `ps -a` of stopped containers\n\nEach ran `true` and ended; podman's were only created. %d rounds after %d that don't count.\n\n", rounds, s.warmup)
	var list []contestant
	for _, n := range counts {
		list = append(list, nookList(s, n))
	}
	all := race(append(list, podmanList(newPodman(s), peers)), s.warmup, rounds)
	table(w, all, "ratio to the first")
	at := [3]float64{}
	for i, n := range counts {
		at[i] = medianOf(all, nookListName(n))
	}
	atMost(w, fmt.Sprintf("%d under 50 ms", counts[1]), 50, figure{"ms", at[1]})
	each := func(i, j int) float64 { return (at[j] - at[i]) * 1000 / float64(counts[j]-counts[i]) }
	linear := figure{name: fmt.Sprintf("%.1f µs each from %d to %d, %.1f µs each from there to %d; a ratio of",
		each(0, 1), counts[0], counts[1], each(1, 2), counts[2])}
	if at[0] > 0 && at[1] > at[0] && at[2] > at[1] {
		linear.value = each(1, 2) / each(0, 1)
	}
	atMost(w, "linear, that is one more costs at most half as much again among the many", 1.5, linear)
	return nil
}

func nookListName(n int) string { return "nook, " + strconv.Itoa(n) }

func nookList(s settings, n int) contestant {
	// How a container's ids are mapped makes no difference to a list, and with
	// a single id it is made faster.
	nook := nookRoot{s: s, root: filepath.Join(s.own(), "nook-list-"+strconv.Itoa(n)), ids: "single"}
	return contestant{
		name: nookListName(n), note: "`nook ps -a`",
		command: func(int) *exec.Cmd { return nook.command("ps", "-a") },
		ready: func() error {
			if err := nook.load(); err != nil {
				return err
			}
			if err := many(n, func(int) *exec.Cmd { return nook.command("run", "--network", "none", "busybox", "true") }); err != nil {
				return err
			}
			return listed(nook.command("ps", "-a", "-q"), n)
		},
	}
}

func podmanList(p podmanStore, n int) contestant {
	return contestant{
		name: "podman, " + strconv.Itoa(n), note: "`podman ps -a`",
		command: func(int) *exec.Cmd { return p.command("ps", "-a") },
		ready: func() error {
			if err := p.load(); err != nil {
				return err
			}
			if err := many(n, func(int) *exec.Cmd { return p.command("create", podmanImage, "/bin/busybox", "true") }); err != nil {
				return err
			}
			return listed(p.command("ps", "-a", "-q"), n)
		},
		done: func() {
			_ = p.remove("-a")
			endPause()
		},
	}
}

// many runs n commands, as many at once as there are processors.
func many(n int, command func(i int) *exec.Cmd) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	errs := make(chan error, runtime.NumCPU())
	for range runtime.NumCPU() {
		workers.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := quietly(command(i)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	workers.Wait()
	close(errs)
	return <-errs
}

// listed checks that a command prints n lines.
func listed(cmd *exec.Cmd, n int) error {
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	if got := bytes.Count(out, []byte("\n")); got != n {
		return fmt.Errorf("%s: %d lines, not %d", cmd, got, n)
	}
	return nil
}
