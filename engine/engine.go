// Package engine is nook as a library: the verbs over images and containers.
//
//	e, err := engine.Open(ctx, engine.Options{})
//	_, err = e.Load(ctx, engine.LoadOptions{Path: "busybox.tar"})
//	code, err := e.Run(ctx, engine.RunOptions{Image: "busybox", Command: []string{"true"}, Remove: true}, engine.Streams{})
//
// A program that uses it must call Main first thing in its own main: the
// processes of a container are the same executable started again.
//
//	if code, handled := engine.Main(os.Args); handled {
//		os.Exit(code)
//	}
//
// A container is found by its name, its id or a prefix of the id that no other
// has. It belongs to its monitor, a process of its own: a context that ends, or
// the end of the program, leaves it running, but for RunOptions.Leash. Errors
// are compared by errors.Is, with those of this package and of containers.
//
// For tests there is nook/nooktest. How docker's HTTP API would stand on these
// calls is written in docs/API.md.
//
// It prints nothing and never exits. What is done inside the user namespace is
// a stage (stage.go); what goes on in a container's own processes is in
// containers/monitor and containers/pid1.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nook/containers"
	"nook/containers/monitor"
	"nook/images"
	"nook/images/layers"
	"nook/internal/hint"
	"nook/namespaces"
	"nook/rootfs/volumes"
)

var (
	// ErrNoHome says that no place for the data root is known.
	ErrNoHome = errors.New("no data root")
	// ErrNoMain says that a program doesn't call Main first.
	ErrNoMain = errors.New("engine.Main was not called")
)

// Engine is one open data root.
type Engine struct {
	root       string
	ids        namespaces.IDs
	opts       Options
	images     *images.Store
	layers     *layers.Store
	containers containers.Dir
	volumes    volumes.Store
}

// Main runs what a process of nook's own was started for, and tells whether
// it was: it goes by args[0], which no shell sets to these names by accident.
func Main(args []string) (code int, handled bool) {
	if len(args) == 0 {
		return 0, false
	}
	if args[0] == monitor.Name {
		return monitor.Run(), true
	}
	if args[0] != initName && lured() {
		fmt.Fprintln(os.Stderr, "nook: not a program of this container")
		return hint.ExitNook, true
	}
	switch args[0] {
	case stageName:
		return runStage(), true
	case monitor.AgainName:
		return runAgain(args[1:]), true
	case initName:
		return runInit(args[1:]), true
	}
	return 0, false
}

// ownProcess tells whether one with this args[0] is nook's own.
func ownProcess(name string) bool {
	return name == monitor.Name || name == stageName || name == monitor.AgainName || name == initName
}

// Open opens a data root and makes it when it isn't there.
func Open(_ context.Context, o Options) (*Engine, error) {
	if len(os.Args) > 0 && ownProcess(os.Args[0]) { // each would start the next one without end
		return nil, hint.Errorf("call engine.Main first thing in main, and exit when it handled the process",
			"this process was started as a %s: %w", os.Args[0], ErrNoMain)
	}
	root, err := dataRoot(o.Root)
	if err != nil {
		return nil, err
	}
	ids, err := namespaces.Detect(namespaces.Mode(o.IDs))
	if err != nil {
		return nil, err
	}
	// 0700: it holds setuid files of the user's.
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, hint.Wrap(fmt.Errorf("make the data root: %w", err), "choose another place with --root or NOOK_ROOT")
	}
	store, err := images.Open(filepath.Join(root, "images"))
	if err != nil {
		return nil, err
	}
	return &Engine{
		root: root, ids: ids, opts: o, images: store,
		layers:     layers.NewStore(filepath.Join(root, "layers"), layers.IDs(ids.Mode)),
		containers: containers.Open(filepath.Join(root, "containers")),
		volumes:    volumes.Open(filepath.Join(root, "volumes")),
	}, nil
}

func dataRoot(asked string) (string, error) {
	root := asked
	if root == "" {
		root = os.Getenv("NOOK_ROOT")
	}
	if root == "" {
		if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) { // the XDG base directory spec ignores others
			root = filepath.Join(data, "nook")
		}
	}
	if root == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", hint.Errorf("use --root DIR, or set HOME or NOOK_ROOT", "%w: %w", ErrNoHome, err)
		}
		root = filepath.Join(home, ".local", "share", "nook")
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("data root %s: %w", root, err)
	}
	return abs, nil
}

func (e *Engine) note(format string, args ...any) {
	if e.opts.Note != nil {
		e.opts.Note(fmt.Sprintf(format, args...))
	}
}
