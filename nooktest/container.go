package nooktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"

	"nook/containers"
	"nook/engine"
)

// Container is a container of a test. Its methods end the test when they can't
// do what they are asked for, but for DialContext; they may be called while the
// test is cleaned up too.
type Container struct {
	t       testing.TB
	engine  *engine.Engine
	id      string
	timeout time.Duration
	leash   *os.File // its end is the container's
	output  output
	leave   func()

	done chan struct{} // closed when the fields below are set
	code int
	err  error
}

// ID is the container's id.
func (c *Container) ID() string { return c.id }

// Engine is the engine that the container runs in.
func (c *Container) Engine() *engine.Engine { return c.engine }

// Logs is what the container wrote to both of its streams so far: of more than
// a megabyte, the end. It is there when the container has ended, too.
func (c *Container) Logs() string { return c.output.String() }

// Result is the end of a command.
type Result struct {
	Code     int
	Out, Err string
}

// Exec runs a command in the container.
func (c *Container) Exec(command ...string) Result {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	var out, errs bytes.Buffer
	code, err := c.engine.Exec(ctx, c.id, engine.ExecOptions{Command: command}, engine.Streams{Out: &out, Err: &errs, KeepSignals: true})
	c.must(err, "exec %q", command)
	return Result{code, out.String(), errs.String()}
}

// DialContext connects to an address in the container's network: tcp or udp
// and localhost:port, or unix and a path in the container. It is what an
// http.Transport, a driver of a database or gRPC take.
func (c *Container) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return c.engine.Dial(ctx, c.id, network, address)
}

// Client talks HTTP to the container: to its localhost and its own addresses,
// not to anybody else, and without a proxy.
func (c *Container) Client() *http.Client {
	transport := &http.Transport{DialContext: c.DialContext}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: c.timeout}
}

// WaitForLog waits for a line of the container's output that a regular
// expression matches, and returns the line.
func (c *Container) WaitForLog(pattern string) string {
	c.t.Helper()
	re, err := regexp.Compile(pattern)
	c.must(err, "wait for a line in the log")
	ctx, cancel := c.context()
	defer cancel()
	line, err := c.engine.WaitForLog(ctx, c.id, re.Match)
	if gone(err) {
		<-c.done // then its last words are here
		if found, ok := c.output.find(re); ok {
			return found
		}
	}
	c.must(err, "%s", pattern)
	return line
}

// WaitForPort waits until something in the container takes connections.
func (c *Container) WaitForPort(network, address string) {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	c.must(c.engine.WaitForPort(ctx, c.id, network, address), "port %s %s", network, address)
}

// WaitForHealthy waits until the container's health check succeeds.
func (c *Container) WaitForHealthy() {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	c.must(c.engine.WaitForHealthy(ctx, c.id), "health")
}

// CopyInto copies a file or directory of this host into the container, by the
// rules of docker cp.
func (c *Container) CopyInto(local, path string) {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	_, err := c.engine.CopyInto(ctx, engine.CopyOptions{Container: c.id, Path: path, Local: local})
	c.must(err, "copy")
}

// CopyOutOf copies a file or directory of the container to this host.
func (c *Container) CopyOutOf(path, local string) {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	_, err := c.engine.CopyOutOf(ctx, engine.CopyOptions{Container: c.id, Path: path, Local: local})
	c.must(err, "copy")
}

// Stop ends the container as its stop signal does, and removes it; Logs stays.
// It returns the exit code.
func (c *Container) Stop() int {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	if err := c.engine.Stop(ctx, c.id, engine.StopOptions{}); !gone(err) {
		c.must(err, "stop")
	}
	return c.Wait()
}

// Wait waits for the container's end and returns its exit code.
func (c *Container) Wait() int {
	c.t.Helper()
	ctx, cancel := c.context()
	defer cancel()
	select {
	case <-c.done:
		c.must(c.err, "wait")
	case <-ctx.Done():
		c.must(context.Cause(ctx), "wait for its end")
	}
	return c.code
}

// context bounds a call. The test's own is over when it is cleaned up.
func (c *Container) context() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), c.timeout, fmt.Errorf("%v have passed", c.timeout))
}

// gone tells of a container that ended and was removed.
func gone(err error) bool {
	return errors.Is(err, containers.ErrNotFound) || errors.Is(err, engine.ErrNotRunning)
}

func (c *Container) must(err error, format string, args ...any) {
	if err == nil {
		return
	}
	c.t.Helper()
	if errors.Is(err, containers.ErrNotFound) {
		<-c.done // or soon
		err = fmt.Errorf("it ended with exit code %d", c.code)
	}
	c.t.Fatalf("container %.12s: %s: %v", c.id, fmt.Sprintf(format, args...), err)
}

// remove is the end of the test.
func (c *Container) remove() {
	defer c.leash.Close()
	ctx, cancel := context.WithTimeout(context.Background(), max(c.timeout, defaultTimeout))
	defer cancel()
	running := true
	select {
	case <-c.done:
		running = false
	default:
	}
	if c.id != "" {
		err := c.engine.RemoveContainer(ctx, c.id, engine.RemoveOptions{Force: true})
		if err != nil && !errors.Is(err, containers.ErrNotFound) {
			c.t.Errorf("container %.12s: %v", c.id, err)
			c.leave()
		}
	}
	_ = c.leash.Close()
	<-c.done
	if c.t.Failed() {
		const killed = 128 + 9 // by us, or by another
		ended := "it was running"
		if !running || c.code != killed {
			ended = fmt.Sprintf("it had ended with exit code %d", c.code)
		}
		c.t.Logf("container %.12s: %s%s", c.id, ended, c.output.tail())
	}
}
