package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"nook/internal/testenv"
)

// times are the wall times of one contestant.
type times struct {
	contestant
	all []time.Duration
	out error // why it isn't in the race
}

func (t times) median() time.Duration {
	s := slices.Sorted(slices.Values(t.all))
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}

// race runs the contestants in turns, there and back (A B C D, D C B A), and
// returns their times in order. Back, because podman goes on tidying up after its
// exit: without it the same contestant would always run beside that, and with
// podman last it is half of the time podman itself.
func race(list []contestant, warmup, rounds int) []times {
	result := make([]times, len(list))
	for i, c := range list {
		result[i].contestant = c
		result[i].out = c.ready()
		if c.done != nil {
			defer c.done()
		}
	}
	for round := 1; round <= warmup+rounds; round++ {
		for i := range result {
			if round%2 == 0 {
				i = len(result) - 1 - i
			}
			r := &result[i]
			if r.out != nil {
				continue
			}
			timing := clock
			if r.clock != nil {
				timing = r.clock
			}
			d, err := timing(r.command(round))
			if err == nil && r.after != nil {
				err = r.after(round)
			}
			if err != nil {
				r.out = fmt.Errorf("round %d: %w", round, err)
			} else if round > warmup {
				r.all = append(r.all, d)
			}
		}
	}
	return result
}

// patience is how long a command may take before it is killed.
const patience = 2 * time.Minute

// clock is the wall time from start to exit.
func clock(cmd *exec.Cmd) (time.Duration, error) {
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	took := time.Since(began)
	timer.Stop()
	return took, err
}

// part is a section of the page.
type part struct {
	name string
	run  func(settings, io.Writer) error
}

func parts() []part {
	return []part{
		{"start", startPart}, {"detached", detachedPart}, {"exec", execPart}, {"ps", listPart},
		{"idle", idlePart}, {"logs", followPart}, {"unpack", unpackPart},
		{"pull", pullPart}, {"load", loadPart}, {"memory", memoryPart}, {"images", imagesPart},
		{"files", filesPart}, {"layer", layerPart}, {"mount", mountPart}, {"build", buildPart}, {"init", initPart},
	}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// measure runs the parts and writes the page, a part at once.
func measure(s settings, w io.Writer) error {
	heading(w, s)
	defer func() { _ = testenv.RemoveAll(s.stores()) }()
	for _, p := range parts() {
		if only := s.parts(); only != nil && !slices.Contains(only, p.name) {
			continue
		}
		began := time.Now()
		page := &strings.Builder{}
		if err := p.run(s, page); err != nil {
			fmt.Fprintf(page, "Not measured: %v\n\n", err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s: %.1f s\n", p.name, time.Since(began).Seconds())
		if _, err := io.WriteString(w, page.String()); err != nil {
			return err
		}
	}
	return nil
}

func heading(w io.Writer, s settings) {
	command := "make bench"
	if s.out != "" {
		command += " OUT=" + s.out
	}
	fmt.Fprintf(w, "# Benchmarks\n\nMade by `%s` on %s: %s.\n", command, time.Now().UTC().Format("2006-01-02"), machine())
	fmt.Fprint(w, "Everything runs as an unprivileged user, in one run, in turns; a ratio is of medians.\n"+
		"Milliseconds of another day or machine compare with nothing here.\n\n")
}

// machine is what the times depend on.
func machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	cpu := "unknown processor"
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%d cores of %s, Linux %s, %s, load %s at the start", runtime.NumCPU(), cpu,
		strings.TrimSpace(string(kernel)), runtime.Version(), first)
}

// table prints times; ratios are to the first of them.
func table(w io.Writer, all []times, ratio string) {
	fmt.Fprintf(w, "| | median ms | least | most | %s | |\n|---|---:|---:|---:|---:|---|\n", ratio)
	for _, t := range all {
		if t.out != nil {
			fmt.Fprintf(w, "| %s | | | | | %s |\n", t.name, notMeasured(t.out))
			continue
		}
		against := "–"
		if base := all[0].median(); base > 0 {
			against = fmt.Sprintf("%.2f", float64(t.median())/float64(base))
		}
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %.1f | %s | %s |\n", t.name, ms(t.median()), ms(slices.Min(t.all)), ms(slices.Max(t.all)), against, t.note)
	}
	fmt.Fprintln(w)
}

// notMeasured is the end of an error, where the cause stands, in a cell of a
// table.
func notMeasured(err error) string {
	said := strings.ReplaceAll(strings.Join(strings.Fields(err.Error()), " "), "|", "/")
	if over := len(said) - 200; over > 0 {
		said = "… " + said[over:]
	}
	return "not measured: " + said
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
