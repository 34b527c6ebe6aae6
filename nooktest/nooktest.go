// Package nooktest runs containers in tests: each is started in a test and
// removed with it.
//
//	func TestMain(m *testing.M) { nooktest.Main(m) }
//
//	func TestServer(t *testing.T) {
//		c := nooktest.Start(t, nooktest.Options{
//			Archive:    "testdata/server.tar",
//			RunOptions: engine.RunOptions{Env: []string{"MODE=test"}},
//		})
//		c.WaitForPort("tcp", "localhost:80")
//		resp, err := c.Client().Get("http://localhost/")
//		…
//	}
//
// A container has a network of its own, which is dialed through its monitor: no
// port is published, so that none is taken, and tests run in parallel. When a
// test fails, the end of its containers' output is shown. When the test process
// panics or is killed, its containers are ended and removed by their monitors,
// each of which holds one end of a pipe from it.
//
// Main is needed: a container's own processes are the test binary, executed
// again. Images and containers are in a data root that the tests of one binary
// share: NOOK_ROOT, or one that Main makes and removes. One that a killed test
// process left is removed by a later Main.
//
// What is missing here has the engine, to which Container.Engine leads.
package nooktest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"nook/engine"
)

// mainVariable tells a process's own tests that Main was called.
const mainVariable = "NOOKTEST_MAIN"

// Main runs the tests and exits with their code. It has to be called first in
// TestMain; what a TestMain does besides can be done in a runner around m. See
// the package's description.
func Main(m interface{ Run() int }) {
	if code, handled := engine.Main(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(run(m))
}

func run(m interface{ Run() int }) (code int) {
	remove, err := shareRoot()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nooktest:", err)
		return 1
	}
	defer func() {
		if err := remove(); err != nil {
			fmt.Fprintln(os.Stderr, "nooktest: remove the data root:", err)
			code = max(code, 1)
		}
	}()
	if err := os.Setenv(mainVariable, strconv.Itoa(os.Getpid())); err != nil {
		fmt.Fprintln(os.Stderr, "nooktest:", err)
		return 1
	}
	return m.Run()
}

// Options describe a container of a test.
type Options struct {
	// RunOptions are as for the engine, but for Remove, which is always on, and
	// Leash, which is ours.
	engine.RunOptions
	// Archive is the path of an image archive, or of an OCI layout's directory.
	// It is loaded into the data root when that hasn't got it yet. Without an
	// Image its first one is run.
	Archive string
	// Timeout bounds the start and each call that waits; 0: a minute.
	Timeout time.Duration
}

const defaultTimeout = time.Minute

// Start starts a container and waits until its entrypoint runs. An error ends
// the test. The container is removed, by force, when the test and its subtests
// are over.
func Start(t testing.TB, o Options) *Container {
	t.Helper()
	if os.Getenv(mainVariable) != strconv.Itoa(os.Getpid()) {
		t.Fatal("nooktest: call nooktest.Main in TestMain")
	}
	c := &Container{t: t, timeout: o.Timeout, done: make(chan struct{})}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	ctx, cancel := c.context()
	defer cancel()
	if err := c.start(ctx, o); err != nil {
		t.Fatalf("start a container: %v%s", err, c.output.tail())
	}
	return c
}

func (c *Container) start(ctx context.Context, o Options) (err error) {
	if c.engine, err = engine.Open(ctx, engine.Options{}); err != nil {
		return err
	}
	if o.Archive != "" {
		id, err := load(ctx, c.engine, o.Archive)
		if err != nil {
			return err
		}
		if o.Image == "" {
			o.Image = id
		}
	}
	held, leash, err := os.Pipe()
	if err != nil {
		return err
	}
	defer held.Close() // the monitor has its own then
	c.leash = leash
	o.Remove, o.Leash = true, held
	started := make(chan string, 1)
	streams := engine.Streams{
		Out: &c.output, Err: &c.output, KeepSignals: true,
		Started: func(id string) { started <- id },
	}
	running, leave := context.WithCancelCause(context.Background())
	c.leave = func() { leave(nil) }
	c.t.Cleanup(c.remove)
	go func() {
		defer close(c.done)
		c.code, c.err = c.engine.Run(running, o.RunOptions, streams)
	}()
	select {
	case c.id = <-started:
		return nil
	case <-ctx.Done():
		leave(context.Cause(ctx))
		<-c.done
		return context.Cause(ctx)
	case <-c.done:
	}
	select {
	case c.id = <-started: // both at once
		return nil
	default:
		return c.err
	}
}
