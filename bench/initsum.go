package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// initTries is how often the binary is started; the least counts, since noise
// only adds.
const initTries = 20

// initPart sums what the packages' own initialisation costs before main.
func initPart(s settings, w io.Writer) error {
	type cost struct {
		name string
		ms   float64
	}
	var least []cost
	leastSum := -1.0
	for range initTries {
		cmd := exec.Command(s.nook, "version")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("nook version: %w", err)
		}
		var all []cost
		sum := 0.0
		for line := range strings.Lines(said.String()) {
			// init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs
			f := strings.Fields(line)
			if len(f) < 6 || f[0] != "init" {
				continue
			}
			n, err := strconv.ParseFloat(f[4], 64)
			if err != nil {
				return fmt.Errorf("inittrace line %q: %w", line, err)
			}
			all = append(all, cost{f[1], n})
			sum += n
		}
		if leastSum < 0 || sum < leastSum {
			least, leastSum = all, sum
		}
	}
	slices.SortFunc(least, func(a, b cost) int { return int((b.ms - a.ms) * 1e6) })
	fmt.Fprintf(w, "## Package initialisation\n\nThe sum of `GODEBUG=inittrace=1 nook version`, the least of %d: **%.2f ms** in %d packages. The dearest:\n\n", initTries, leastSum, len(least))
	for _, c := range least[:min(6, len(least))] {
		fmt.Fprintf(w, "- %s %.3f ms\n", c.name, c.ms)
	}
	fmt.Fprintln(w)
	atMost(w, "at most 1.0 ms", 1, figure{"ms", leastSum})
	return nil
}
