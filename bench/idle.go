package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// rest is how long idle containers are left alone before their memory is read.
const rest = 3 * time.Second

// idlePart reads the memory that many containers cost which do nothing: the
// private pages of whatever isn't the containers' own processes.
func idlePart(s settings, w io.Writer) error {
	n, peers := 100, 20
	if s.quick {
		n, peers = 5, 2
	}
	fmt.Fprintf(w, "## Memory of idle containers\n\nPrivate_Clean and Private_Dirty (/proc/PID/smaps_rollup) of all processes of the tool's own together, %v after the last start of `sleep`; the containers' processes are not counted.\n\n", rest)
	fmt.Fprint(w, "| | containers | processes | private KiB each | of that, dirty | |\n|---|---:|---:|---:|---:|---|\n")
	var figures []figure
	for _, ids := range []string{"mapped", "single"} {
		nook := newNook(s, ids)
		m, err := nookIdle(nook, n)
		m.row(w, "nook, "+ids, n, "one monitor a container", err)
		figures = append(figures, figure{ids, m.each(n) / 1024})
	}
	m, err := podmanIdle(newPodman(s), peers)
	m.row(w, "podman", peers, "a conmon a container, and the pause process", err)
	fmt.Fprintln(w)
	atMost(w, "at most 4 MiB each", 4, figures...)
	return nil
}

// memory is a sum over processes, in KiB.
type memory struct {
	processes, private, dirty int
}

func (m memory) each(n int) float64 { return float64(m.private) / float64(n) }

func (m memory) row(w io.Writer, name string, n int, note string, err error) {
	if err != nil {
		fmt.Fprintf(w, "| %s | | | | | %s |\n", name, notMeasured(err))
		return
	}
	fmt.Fprintf(w, "| %s | %d | %d | %.0f | %.0f | %s |\n", name, n, m.processes, m.each(n), float64(m.dirty)/float64(n), note)
}

func nookIdle(nook nookRoot, n int) (memory, error) {
	if err := nook.load(); err != nil {
		return memory{}, err
	}
	return idlers(n, nook.idle, nook.remove, nook.s.nook)
}

func podmanIdle(p podmanStore, n int) (memory, error) {
	if err := p.load(); err != nil {
		return memory{}, err
	}
	defer endPause()
	var programs []string
	for _, name := range []string{"podman", "conmon"} {
		file, err := exec.LookPath(name)
		if err != nil {
			return memory{}, err
		}
		programs = append(programs, file)
	}
	return idlers(n, p.idle, p.remove, programs...)
}

// idlers starts n containers, sums what runs the programs, and removes them.
func idlers(n int, idle func(string) *exec.Cmd, remove func(...string) error, programs ...string) (m memory, err error) {
	var names []string
	defer func() { err = errors.Join(err, remove(names...)) }()
	for i := range n {
		names = append(names, "idle"+strconv.Itoa(i))
		if err := quietly(idle(names[i])); err != nil {
			return m, err
		}
	}
	time.Sleep(rest)
	m, err = memoryOf(programs)
	if err == nil && m.processes < n {
		err = fmt.Errorf("only %d processes of %d containers were found", m.processes, n)
	}
	return m, err
}

// memoryOf sums the memory of the user's processes that run one of programs.
// The file is what tells: a monitor's path of it is "/".
func memoryOf(programs []string) (sum memory, err error) {
	var files []os.FileInfo
	for _, p := range programs {
		f, err := os.Stat(p)
		if err != nil {
			return sum, err
		}
		files = append(files, f)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return sum, err
	}
	for _, dir := range dirs {
		exe, err := os.Stat(dir + "/exe")
		if err != nil {
			continue // another's, or it ended
		}
		for _, f := range files {
			if !os.SameFile(exe, f) {
				continue
			}
			text, err := os.ReadFile(dir + "/smaps_rollup")
			if err != nil {
				return sum, err
			}
			dirty := rollup(text, "Private_Dirty:")
			sum.processes++
			sum.dirty += dirty
			sum.private += dirty + rollup(text, "Private_Clean:")
		}
	}
	return sum, nil
}

// rollup is a field of smaps_rollup, in KiB.
func rollup(text []byte, field string) int {
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == field {
			return number(string(f[1]))
		}
	}
	return 0
}
