package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/frame"
)

// TestDialEndsWithTheContainer: a connection that nobody takes up keeps a
// monitor no longer than its container.
func TestDialEndsWithTheContainer(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{Network: "host"}, "exec sleep 1000")
	failed := make(chan error, 1)
	address := full(t)
	go func() {
		_, err := e.Dial(t.Context(), id, "tcp", address)
		failed <- err
	}()
	select {
	case err := <-failed:
		t.Fatalf("dial %s: %v, want it to wait", address, err)
	case <-time.After(200 * time.Millisecond):
	}
	// Less than the 30 seconds after which the monitor gives up by itself.
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()
	if err := e.RemoveContainer(ctx, id, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the connection was made")
	}
}

// full is the address of a listener that has no room for another connection.
func full(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := errors.Join(unix.Bind(fd, loopback), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(name.(*unix.SockaddrInet4).Port)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		// Of a listener: how many wait to be accepted, and how many may
		// (tcp_get_info in Linux's net/ipv4/tcp.c).
		if info.Unacked > info.Sacked {
			return address
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
}

// TestSilentMonitor: a monitor that is stopped is waited for once, and said to
// be silent; stop and rm -f end it.
func TestSilentMonitor(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{}, "exec sleep 1000")
	ct, err := e.containers.Find(id)
	if err != nil {
		t.Fatal(err)
	}
	state, err := ct.State()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Exec(t.Context(), id, ExecOptions{Command: []string{"true"}}, Streams{}); err != nil {
		t.Fatal(err) // its socket is there then
	}
	if err := unix.Kill(state.Monitor.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	asked := silentSocket(t, ct.Path)
	failed := make(chan error, 1)
	go func() {
		_, err := e.Exec(t.Context(), id, ExecOptions{Command: []string{"true"}}, Streams{})
		failed <- err
	}()
	if err := e.Stop(t.Context(), id, StopOptions{}); err != nil {
		t.Errorf("stop: %v", err)
	}
	// Both wait for as long, and stop, when it was first, has ended the monitor.
	if err := <-failed; !errors.Is(err, containers.ErrNoMonitor) && !errors.Is(err, ErrNotRunning) {
		t.Errorf("exec: %v, want %v", err, containers.ErrSilent)
	}
	if state, err = ct.State(); err != nil || state.Status.Live() {
		t.Errorf("after stop: %v, %v", state.Status, err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the monitor was asked %d times, want once by each of two", n)
	}
}

// silentSocket listens in the place of a container's monitor, says nothing and
// counts who connects.
func silentSocket(t *testing.T, dir string) *atomic.Int32 {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/sock", d.Fd()) // a socket's path has room for 107 bytes
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	t.Cleanup(func() { _ = listener.Close() })
	var asked atomic.Int32
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			defer conn.Close()
		}
	}()
	return &asked
}

// TestHealthCheckThatIsStopped: a container that stops each process which
// comes into it has a check that fails in time.
func TestHealthCheckThatIsStopped(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{Health: &containers.HealthCheck{
		Test: []string{"CMD", "true"}, Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond,
	}}, "sh -c 'while :; do kill -STOP -1; done' & exec sleep 1000")
	late := time.Now().Add(2 * time.Minute) // bounds a failure
	for {
		ct, err := e.containers.Find(id)
		if err != nil {
			t.Fatal(err)
		}
		state, err := ct.State()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range state.Health.Log {
			if p.ExitCode == -1 {
				return // as one that began and took too long
			}
		}
		if time.Now().After(late) {
			t.Fatalf("no check was given up: %+v", state.Health)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestInputWindow: a client that sends more input than it may is cut off; the
// monitor doesn't keep it.
func TestInputWindow(t *testing.T) {
	e := loaded(t, "single", nil)
	id := inBackground(t, e, RunOptions{}, "exec sleep 1000")
	ct, err := e.containers.Find(id)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connect(t.Context(), ct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	exec := containers.ExecRequest{Args: []string{"sleep", "1000"}, OpenStdin: true}
	if _, err := conn.Ask(t.Context(), containers.Request{Verb: containers.VerbExec, Exec: &exec}); err != nil {
		t.Fatal(err)
	}
	for sent := 0; ; sent++ {
		if frame.Write(conn, frame.Stdin, make([]byte, frame.MaxPayload)) != nil {
			break
		}
		if sent == 16 {
			t.Fatalf("%d MiB were taken, the window is %d bytes", sent, frame.StdinWindow)
		}
	}
	// Who keeps to it is served as before.
	var out bytes.Buffer
	input := strings.Repeat("x", 4*frame.StdinWindow)
	code, err := e.Exec(t.Context(), id, ExecOptions{Command: []string{"wc", "-c"}, Interactive: true},
		Streams{In: strings.NewReader(input), Out: &out})
	if err != nil || code != 0 || strings.TrimSpace(out.String()) != strconv.Itoa(len(input)) {
		t.Errorf("wc -c: %d, %v, %q", code, err, out.String())
	}
}
