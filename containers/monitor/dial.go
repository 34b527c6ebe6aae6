package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/frame"
	"nook/internal/safepath"
)

// dialTime bounds a connection's making.
const dialTime = 30 * time.Second

// dial connects in the container's network and hands the connection over: a
// socket stays in the network namespace that it was made in.
func (m *monitor) dial(conn *net.UnixConn, frames *frame.Reader, req containers.Request) {
	defer conn.Close()
	got, err := m.dialed(untilGone(frames), req.Network, req.Address)
	if err != nil {
		m.reply(conn, containers.Failed(err))
		return
	}
	defer got.Close()
	if !m.reply(conn, containers.Result{}) {
		return
	}
	_, _, _ = conn.WriteMsgUnix([]byte{1}, unix.UnixRights(int(got.Fd())), nil)
}

// dialed gives up when the client goes away, and at the container's end: the
// monitor's own waits for it.
func (m *monitor) dialed(gone context.Context, network, address string) (*os.File, error) {
	l, err := m.running()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(gone, dialTime)
	defer cancel()
	go func() {
		select {
		case <-l.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
	case "unix":
		return m.dialPath(ctx, l, address)
	default:
		return nil, fmt.Errorf("dial: %w", net.UnknownNetworkError(network))
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	hosts := []string{host}
	switch host {
	case "", "localhost", m.config.Hostname:
		hosts = []string{"127.0.0.1", "::1"}
	default:
		if net.ParseIP(host) == nil {
			return nil, fmt.Errorf("dial %s: %q is no address and not localhost", address, host)
		}
	}
	netns := -1
	if m.config.Network != "host" {
		if netns, err = unix.Open(fmt.Sprintf("/proc/%d/ns/net", l.host), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("dial %s: open the container's network: %w", address, err)
		}
		defer unix.Close(netns)
	}
	var failures []error
	for _, h := range hosts {
		f, err := dialIn(ctx, netns, network, net.JoinHostPort(h, port))
		if err == nil {
			return f, nil
		}
		failures = append(failures, err)
	}
	return nil, failures[0]
}

// dialIn connects from a network namespace, on a thread of its own that ends
// with it: it could not be brought back to where it was.
func dialIn(ctx context.Context, netns int, network, address string) (*os.File, error) {
	type answer struct {
		f   *os.File
		err error
	}
	done := make(chan answer, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if netns >= 0 {
			if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
				done <- answer{nil, fmt.Errorf("dial %s: enter the container's network: %w", address, err)}
				return
			}
		}
		// One address in numbers: the dialer makes its socket on this thread.
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			done <- answer{nil, err}
			return
		}
		f, err := fileOf(conn)
		_ = conn.Close()
		done <- answer{f, err}
	}()
	a := <-done
	return a.f, a.err
}

func fileOf(conn net.Conn) (*os.File, error) {
	f, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("dial: the connection is no file")
	}
	return f.File()
}

// dialPath connects to a unix socket of the container, found in its root and
// nowhere else.
func (m *monitor) dialPath(ctx context.Context, l *life, path string) (*os.File, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", l.host), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("dial %s: open the container's root: %w", path, err)
	}
	defer root.Close()
	sock, err := safepath.RootAt(root).Open(path, unix.O_PATH, 0)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	defer sock.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", sock.Fd()))
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	defer conn.Close()
	return fileOf(conn)
}
