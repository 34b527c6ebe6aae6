// Command bench times how long it takes to start a sandbox and to unpack a
// Debian, against the least it can cost and against the peers that are
// installed.
//
//	make bench                          the table on standard output
//	make bench OUT=docs/BENCHMARKS.md   the page
//
// All contestants run in one go, in turns (A B C D D C B A …), so that whatever
// else the machine does meets each alike; what counts are ratios of medians.
//
//	bench (root)     makes the test user; a private mount namespace
//	  └─ bench (root)    the peers' needs: cgroup2 on /sys/fs/cgroup with a
//	       │             subtree of the user's, / shared, an overlay mounted
//	       └─ bench (user)   measures
//
// Started by a user it measures at once; the peers that need root's help then
// fall out with a note. nook needs none of it.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// settings are the flags. They are passed on to the re-executed process.
type settings struct {
	nook   string
	out    string
	rounds int
	warmup int
	only   string
	base   string // internal: the directory that was set up
	stage  string // internal: "", "setup" or "measure"
}

func main() {
	var s settings
	flag.StringVar(&s.nook, "nook", "bin/nook", "the binary to measure")
	flag.StringVar(&s.out, "out", "", "file to write the page to")
	flag.IntVar(&s.rounds, "rounds", 50, "rounds that count")
	flag.IntVar(&s.warmup, "warmup", 5, "rounds before those")
	flag.StringVar(&s.only, "only", "", "start, unpack or init: one part alone")
	flag.StringVar(&s.base, "base", "", "set up by an earlier stage")
	flag.StringVar(&s.stage, "stage", "", "an earlier stage's word")
	flag.Parse()
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
	}
	base, err := os.MkdirTemp("/var/tmp", "nook-bench-") // a disk, not a tmpfs
	if err != nil {
		return err
	}
	defer func() { _ = removeAll(base) }()
	if err := prepare(base, &s); err != nil {
		return err
	}
	var page bytes.Buffer
	if os.Geteuid() == 0 {
		err = asRootFirst(s, &page)
	} else {
		err = measure(s, &page)
	}
	if err != nil {
		return err
	}
	if s.out != "" {
		return os.WriteFile(s.out, page.Bytes(), 0o644)
	}
	_, err = io.Copy(os.Stdout, &page)
	return err
}

// prepare puts what every stage needs into base: the binary, the floor
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
	if err := compileFloor(base); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without the floor:", err)
	}
	return busybox(base)
}
