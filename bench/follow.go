package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// shape is how a container writes.
type shape struct {
	name       string
	line, each int // lengths of a line and of a write(2)
}

func shapes() []shape {
	return []shape{
		{"64 KiB lines, a write each", 64 << 10, 64 << 10},
		{"1000-byte lines, 65 a write", 1000, 65000},
		{"1000-byte lines, a write each", 1000, 1000},
	}
}

// follower is a way to run a container and to follow its log.
type follower struct {
	name   string
	size   int64 // bytes to write
	rounds int
	load   func() error
	// start runs the writer detached, with the directories bin and go bound.
	start  func(name, bin, word string, args []string) *exec.Cmd
	follow func(name string) *exec.Cmd
	remove func(names ...string) error
	done   func()
}

// followPart times a container that writes all it can while somebody follows
// its log, from the word to go until the follower ended; every byte that the
// follower gave is compared with what was written.
func followPart(s settings, w io.Writer) error {
	size, small, rounds := int64(1<<30), int64(1<<26), 3
	if s.quick {
		size, small, rounds = 16<<20, 4<<20, 1
	}
	fmt.Fprintf(w, "## A container that writes, under `logs -f`\n\nThe container writes %d MiB (podman's %d MiB) to standard output; the time is from its first byte until `logs -f`, which was there before it, ends. "+
		"Every byte that came is compared with what was written. MB are 10^6 bytes; the least of %d rounds stands beside the median.\n\n", size>>20, small>>20, rounds)
	fmt.Fprint(w, "| | | MB/s, median | least | bytes lost | |\n|---|---|---:|---:|---:|---|\n")
	nook, p := newNook(s, "mapped"), newPodman(s)
	p.events = "file"
	own := follower{name: "nook", size: size, rounds: rounds, load: nook.load, remove: nook.remove,
		start: func(name, bin, word string, args []string) *exec.Cmd {
			return nook.command(append([]string{"run", "-d", "--name", name, "--network", "none",
				"-v", bin + ":/bench:ro", "-v", word + ":/go", "busybox", "/bench/bench"}, args...)...)
		},
		follow: func(name string) *exec.Cmd { return nook.command("logs", "-f", name) },
	}
	peer := follower{name: "podman", size: small, rounds: 1, load: p.load, remove: p.remove, done: endPause,
		start: func(name, bin, word string, args []string) *exec.Cmd {
			return p.command(append([]string{"run", "-d", "--name", name, "--network", "none", "--log-driver", "k8s-file",
				"-v", bin + ":/bench:ro", "-v", word + ":/go", podmanImage, "/bench/bench"}, args...)...)
		},
		follow: func(name string) *exec.Cmd { return p.command("logs", "-f", name) },
	}
	var figures []figure
	for _, f := range []follower{own, peer} {
		for _, r := range f.measure(s) {
			r.row(w, f.name)
			if f.name == own.name {
				figures = append(figures, figure{r.name, r.median()})
			}
		}
	}
	fmt.Fprintln(w)
	atLeast(w, "no byte lost, at 200 MB/s or more", 200, figures...)
	return nil
}

// pace is what came of one shape.
type pace struct {
	shape
	rates []float64 // MB/s
	lost  int64
	err   error
}

// median is 0 when anything went wrong.
func (p pace) median() float64 {
	if p.err != nil || len(p.rates) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(p.rates))[len(p.rates)/2]
}

func (p pace) row(w io.Writer, name string) {
	if p.err != nil {
		lost := ""
		if p.lost > 0 {
			lost = fmt.Sprint(p.lost)
		}
		fmt.Fprintf(w, "| %s | %s | | | %s | %s |\n", name, p.name, lost, notMeasured(p.err))
		return
	}
	fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | 0 | |\n", name, p.name, p.median(), slices.Min(p.rates))
}

// measure takes the shapes in turns.
func (f follower) measure(s settings) []pace {
	var all []pace
	for _, sh := range shapes() {
		all = append(all, pace{shape: sh})
	}
	err := f.load()
	if f.done != nil {
		defer f.done()
	}
	for range f.rounds {
		for i := range all {
			p := &all[i]
			if p.err == nil && err != nil {
				p.err = err
			}
			if p.err != nil {
				continue
			}
			var took time.Duration
			if p.lost, took, p.err = f.once(s, p.shape); p.err == nil {
				p.rates = append(p.rates, float64(f.size)/1e6/took.Seconds())
			}
			err = p.err // what hung once would hang again
		}
	}
	return all
}

// longest is what a follower may take, in case one hangs.
const longest = time.Minute

// once runs a container that writes, and follows it.
func (f follower) once(s settings, sh shape) (lost int64, took time.Duration, err error) {
	const name = "writer"
	word, err := os.MkdirTemp(s.own(), "go-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(word)
	fifo := filepath.Join(word, "go")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return 0, 0, &os.PathError{Op: "mkfifo", Path: fifo, Err: err}
	}
	start, err := os.OpenFile(fifo, os.O_RDWR, 0) // both ends: no open waits
	if err != nil {
		return 0, 0, err
	}
	defer start.Close()
	defer func() { err = errors.Join(err, f.remove(name)) }()
	if err := quietly(f.start(name, filepath.Join(s.base, "bin"), word, writeArgs(f.size, sh.line, sh.each))); err != nil {
		return 0, 0, err
	}
	cmd := f.follow(name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer time.AfterFunc(longest, func() { _ = cmd.Process.Kill() }).Stop()
	hello := make([]byte, len(greeting))
	if _, err := io.ReadFull(out, hello); err != nil || string(hello) != greeting {
		_ = cmd.Process.Kill()
		return 0, 0, fmt.Errorf("the writer said %q: %w", hello, errors.Join(err, cmd.Wait()))
	}
	began := time.Now()
	if _, err := start.Write([]byte{1}); err != nil {
		return 0, 0, err
	}
	got, err := newStream(sh.line).compare(out, f.size)
	took = time.Since(began)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	return f.size - got, took, errors.Join(err, cmd.Wait())
}
