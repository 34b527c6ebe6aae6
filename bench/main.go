// Command bench times what people do with containers, against the least it can
// cost and against the peers that are installed, and says which bars are met.
//
//	make bench                               the page on standard output
//	make bench OUT=docs/BENCHMARKS.md        the page
//	make bench BENCHFLAGS='-only exec,idle'  two parts of it
//	make bench BENCHFLAGS=-quick             small counts: does it all work?
//
// All contestants run in one go, in turns (A B C D D C B A …), so that whatever
// else the machine does meets each alike; what counts are ratios of medians.
//
//	bench (root)     makes the test user; private mount and pid namespaces, with
//	  │              which all goes that a part left running
//	  └─ bench (root)    the peers' needs: cgroup2 on /sys/fs/cgroup with a
//	       │             subtree of the user's, / shared, an overlay mounted
//	       └─ bench (user)   measures
//	            └─ ... bench     writes, in a container
//
// Started by a user it measures at once; the peers that need root's help then
// fall out with a note. nook needs none of it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// settings are the flags. They are passed on to the re-executed process.
type settings struct {
	nook   string
	out    string
	rounds int
	warmup int
	only   string
	quick  bool
	base   string // internal: the directory that was set up
	stage  string // internal: "", "setup", "measure" or "write"
}

func main() {
	var s settings
	flag.StringVar(&s.nook, "nook", "bin/nook", "the binary to measure")
	flag.StringVar(&s.out, "out", "", "file to write the page to")
	flag.IntVar(&s.rounds, "rounds", 50, "rounds that count")
	flag.IntVar(&s.warmup, "warmup", 5, "rounds before those")
	flag.StringVar(&s.only, "only", "", "the parts to run, by commas: "+strings.Join(partNames(), ", "))
	flag.BoolVar(&s.quick, "quick", false, "small counts, to see whether all works; the numbers mean nothing")
	flag.StringVar(&s.base, "base", "", "set up by an earlier stage")
	flag.StringVar(&s.stage, "stage", "", "an earlier stage's word")
	flag.Parse()
	if s.quick {
		s.rounds, s.warmup = 3, 1
	}
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	switch s.stage {
	case "setup":
		return setup(s)
	case "measure":
		return measure(s, os.Stdout)
	case "write":
		return write(flag.Args())
	case "timed":
		return sayTime(flag.Args())
	}
	for _, name := range s.parts() {
		if !slices.Contains(partNames(), name) {
			return fmt.Errorf("no part is called %q: there are %s", name, strings.Join(partNames(), ", "))
		}
	}
	base, err := os.MkdirTemp("/var/tmp", "nook-bench-") // a disk, not a tmpfs
	if err != nil {
		return err
	}
	defer func() { _ = removeAll(base) }()
	if err := prepare(base, &s); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	var page bytes.Buffer
	if os.Geteuid() == 0 {
		err = asRootFirst(ctx, s, &page)
	} else {
		err = measure(s, &page)
	}
	if err == nil && s.out != "" {
		return os.WriteFile(s.out, page.Bytes(), 0o644)
	}
	_, werr := io.Copy(os.Stdout, &page) // with an error: what there is
	return errors.Join(err, werr)
}

// parts are the names that -only has; none: all.
func (s settings) parts() []string {
	if s.only == "" {
		return nil
	}
	return strings.Split(s.only, ",")
}

// prepare puts what every stage needs into base: the binaries, the floor
// compiled, an unpacked busybox and an image of it.
func prepare(base string, s *settings) error {
	s.base = base
	if err := os.Chmod(base, 0o755); err != nil {
		return err
	}
	nook := filepath.Join(base, "nook")
	if err := copyFile(s.nook, nook); err != nil {
		return fmt.Errorf("the binary to measure (make build): %w", err)
	}
	s.nook = nook
	// go run's own copy is in a directory of its user's alone.
	if err := os.Mkdir(filepath.Join(base, "bin"), 0o755); err != nil {
		return err
	}
	if err := copyFile("/proc/self/exe", benchIn(base)); err != nil {
		return err
	}
	if err := compileFloor(base); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without the floor:", err)
	}
	return busybox(base)
}

// benchIn is where this program lies for all who need it.
func benchIn(base string) string { return filepath.Join(base, "bin", "bench") }
