// Go would read the limits of our cgroup at each start, and all mounts with
// them, to choose GOMAXPROCS: too much for processes that mostly wait.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command nook runs containers without root and without a daemon.
//
//	nook load -i busybox.tar
//	nook run --rm -it busybox sh
//
// This package is the command line and nothing else: flags as docker's users
// type them, tables, the progress bar, the caller's terminal, messages and exit
// codes. What a verb does is in package engine; each verb has a file here that
// turns flags into a call and the answer into text.
//
// The way of a command line:
//
//	os.Args → split global flags and verb → rewrite flags (args.go)
//	        → urfave/cli: typed values → verb → engine
//	        → error: one line of fact, at most one hint, the exit code
package main

import (
	"os"
	"path/filepath"

	"nook/engine"
	_ "nook/internal/early" // forks the processes of nook run
)

func main() {
	// A re-executed process of nook's own (monitor, stage, init) is no command
	// line, and every moment spent before it is part of a container's start.
	if code, handled := engine.Main(os.Args); handled {
		os.Exit(code)
	}
	// The built-in image holds this file under the name hello.
	if filepath.Base(os.Args[0]) == "hello" {
		os.Exit(hello(os.Stdout, here()))
	}
	os.Exit(newShell().main(os.Args[1:]))
}
