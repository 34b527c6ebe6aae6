package engine

import (
	"context"
	"errors"
	"fmt"
	"net"

	"strings"
	"time"

	"nook/containers"
	"nook/containers/logs"
	"nook/internal/hint"
)

// What a program waits for before it uses a container.

var (
	// ErrUnhealthy says that a container's health check failed too often.
	ErrUnhealthy = errors.New("container is unhealthy")
	// ErrNoHealthCheck says that a container has no health check.
	ErrNoHealthCheck = errors.New("container has no health check")
)

// WaitError says that what was waited for did not come.
type WaitError struct {
	For       string // what was waited for, as in "port tcp 127.0.0.1:80"
	Container string // as the caller called it
	Last      string // what was last seen of it; "": nothing
	// Log are the last lines that the container wrote, at most ten, of both
	// streams.
	Log []string
	// Err is ErrNotRunning when the container ended first, ErrUnhealthy, or the
	// context's error.
	Err error
	// ExitCode is that of a container that ended; -1: none, or not known.
	ExitCode int
}

// Error is a line of fact; the lines of the log follow, each after a tab.
func (e *WaitError) Error() string {
	text := "wait for " + e.For + " of container " + e.Container + ": "
	switch {
	case !errors.Is(e.Err, ErrNotRunning):
		text += e.Err.Error()
	case e.ExitCode < 0:
		text += "it ended"
	default:
		text += fmt.Sprintf("it ended with exit code %d", e.ExitCode)
	}
	if e.Last != "" {
		text += "; last seen: " + e.Last
	}
	if len(e.Log) == 0 {
		return text + "; its log is empty"
	}
	return text + "; its log ends:\n\t" + strings.Join(e.Log, "\n\t")
}

func (e *WaitError) Unwrap() error { return e.Err }

// WaitForLog waits until a container has written a line that matches, and
// returns it, without its end. It looks at both streams, from the container's
// last start on, and also at one that has ended. A regular expression's Match
// is such a function:
//
//	line, err := e.WaitForLog(ctx, "db", regexp.MustCompile(`ready to accept`).Match)
//
// match sees each line once, without its end, and must not keep it. Of a line
// of more than a megabyte it sees the beginning; one that has no end, when the
// container has ended.
//
// When the container ends first, or ctx, the error is a WaitError.
func (e *Engine) WaitForLog(ctx context.Context, nameOrID string, match func(line []byte) bool) (line string, err error) {
	w, err := e.waitable(ctx, nameOrID, "a line in the log")
	if err != nil {
		return "", err
	}
	matched := func(text []byte) bool {
		if !match(text) {
			return false
		}
		line = string(text)
		return true
	}
	if err := w.begin(-1, matched); err != nil {
		return "", err
	}
	defer w.close()
	<-w.ended // by ctx too
	if errors.Is(w.err, errMatched) {
		return line, nil
	}
	return "", w.failed("", nil)
}

// WaitForPort waits until something in a container takes connections at an
// address: network and address are as for Dial, which is how it is tried; udp
// has no connections to wait for. A server that takes one sees it closed again.
//
// When the container ends first, or ctx, the error is a WaitError.
func (e *Engine) WaitForPort(ctx context.Context, nameOrID, network, address string) error {
	w, err := e.waitable(ctx, nameOrID, "port "+network+" "+address)
	if err != nil {
		return err
	}
	if err := dialable(w.cfg, network, address); err != nil {
		return err
	}
	if err := w.begin(tailLines, nil); err != nil {
		return err
	}
	defer w.close()
	last := ""
	for delay := firstDelay; ; delay = min(2*delay, longestDelay) {
		conn, err := e.Dial(w.ctx, w.ct.ID, network, address)
		if err == nil {
			return conn.Close()
		}
		if w.ctx.Err() == nil { // or it is about that
			last = err.Error()
		}
		select {
		case <-w.ctx.Done():
			return w.failed(last, nil)
		case <-time.After(delay):
		}
	}
}

// The time between two tries, which cost the monitor a thread each.
const (
	firstDelay   = time.Millisecond
	longestDelay = 50 * time.Millisecond
)

// dialable refuses what no time will mend.
func dialable(cfg *containers.Config, network, address string) error {
	switch network {
	case "unix":
		return nil
	case "tcp", "tcp4", "tcp6":
	case "udp", "udp4", "udp6":
		return hint.Errorf("wait for a line in its log", "wait for port %s %s: udp has no connections", network, address)
	default:
		return fmt.Errorf("wait for port: %w", net.UnknownNetworkError(network))
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("wait for port: %w", err)
	}
	if host != "" && host != "localhost" && host != cfg.Hostname && net.ParseIP(host) == nil {
		return fmt.Errorf("wait for port %s: %q is no address and not localhost", address, host)
	}
	return nil
}

// WaitForHealthy waits until a container's health check succeeds. A container
// without one is ErrNoHealthCheck at once.
//
// When the check has failed as often as it may, or the container ends first, or
// ctx, the error is a WaitError with what the check said.
func (e *Engine) WaitForHealthy(ctx context.Context, nameOrID string) error {
	w, err := e.waitable(ctx, nameOrID, "health")
	if err != nil {
		return err
	}
	if w.cfg.Health == nil {
		return hint.Errorf("give the image a HEALTHCHECK, or RunOptions a Health", "container %s: %w", nameOrID, ErrNoHealthCheck)
	}
	changes := logs.NewWatch(w.ct.Path, func() {})
	defer changes.Close()
	if err := w.begin(tailLines, nil); err != nil {
		return err
	}
	defer w.close()
	last := ""
	for look := true; ; look = changes.Changed() {
		if look {
			state, err := w.ct.State()
			if err != nil {
				return err
			}
			if state.Health != nil && state.Status.Live() {
				last = healthText(state.Health)
				switch {
				case state.Status == containers.Restarting: // it is the last run's
				case state.Health.Status == "healthy":
					return nil
				case state.Health.Status == "unhealthy":
					return w.failed(last, ErrUnhealthy)
				}
			}
		}
		select {
		case <-w.ctx.Done():
			return w.failed(last, nil)
		case <-changes.C:
		}
	}
}

// healthText is a state of health with what the last check said, in one line.
func healthText(h *containers.Health) string {
	if len(h.Log) == 0 {
		return h.Status
	}
	last := h.Log[len(h.Log)-1]
	text := fmt.Sprintf("%s: exit code %d", h.Status, last.ExitCode)
	if output := strings.Join(strings.Fields(last.Output), " "); output != "" {
		text += ": " + output[:min(len(output), longestSeen)]
	}
	return text
}
