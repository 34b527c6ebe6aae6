package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/namespaces"
	"nook/rootfs"
)

// agents is where the sockets of a step's agents lie, in its directory.
const agents = "agents"

// agent prepares a --mount=type=ssh: a socket of the step's own, with the owner
// and mode that are asked for, whose connections go on to the agent's. They end
// with the step.
//
//	command -- connect --> agents/N -- nook build -- connect --> the agent's socket
func (r *buildRun) agent(ctx context.Context, m build.Mount) error {
	dir := filepath.Join(r.st.dir, agents)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r.w.e.noRoom(err)
	}
	name := fmt.Sprint(len(r.binds)) // no other bind's
	stop, err := forwardAgent(dir, name, m.Socket)
	if err != nil {
		return err
	}
	r.held = append(r.held, stop)
	socket := filepath.Join(dir, name)
	mode := os.FileMode(0o600)
	if m.Mode != nil {
		mode = m.Mode.Perm()
	}
	if err := os.Chmod(socket, mode); err != nil {
		return err
	}
	if (m.UID != 0 || m.GID != 0) && r.w.e.ids.Mode != namespaces.Single {
		job := &buildJob{Do: jobOwn, Paths: []string{socket}, UID: m.UID, GID: m.GID}
		if err := r.w.e.stage(ctx, request{Build: job}, nil); err != nil {
			return err
		}
	}
	r.binds = append(r.binds, rootfs.Bind{Source: socket, Target: m.Target})
	return nil
}

// forwardAgent listens at a name in a directory, and connects whoever comes to a
// socket of the host, until stop.
func forwardAgent(dir, name, socket string) (stop func(), err error) {
	at, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	// A socket's path has 107 bytes (unix(7)), and a data root may have more.
	path := fmt.Sprintf("/proc/self/fd/%d/%s", at.Fd(), name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the agent %s: %w", socket, err)
	}
	l.SetUnlinkOnClose(false) // that path is another directory's by then
	ctx, cancel := context.WithCancel(context.Background())
	f := &agentConns{conns: map[net.Conn]bool{}}
	f.all.Go(func() {
		defer l.Close() // who comes when no more can be taken is refused
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f.all.Go(func() { f.serve(ctx, conn, socket) })
		}
	})
	return func() {
		_ = l.Close()
		cancel()
		f.end()
	}, nil
}

// agentConns are the connections of one socket.
type agentConns struct {
	all   sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// keep notes a connection; false once all have to end.
func (f *agentConns) keep(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[conn] = true
	return !f.ended
}

func (f *agentConns) end() {
	f.mu.Lock()
	f.ended = true
	for conn := range f.conns {
		_ = conn.Close()
	}
	f.mu.Unlock()
	f.all.Wait()
}

// serve carries both directions of one connection.
func (f *agentConns) serve(ctx context.Context, inside *net.UnixConn, socket string) {
	defer inside.Close()
	to, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return // as if the agent had hung up: ssh tells that
	}
	defer to.Close()
	if !f.keep(inside) || !f.keep(to) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(inside, to)
		_ = inside.CloseWrite()
	})
	_, _ = io.Copy(to, inside)
	if half, ok := to.(*net.UnixConn); ok {
		_ = half.CloseWrite()
	}
	back.Wait()
	f.mu.Lock()
	delete(f.conns, inside)
	delete(f.conns, to)
	f.mu.Unlock()
}

// own gives files to ids of the user namespace.
func (job *buildJob) own() error {
	for _, name := range job.Paths {
		if err := unix.Lchown(name, int(job.UID), int(job.GID)); err != nil {
			return &os.PathError{Op: "chown", Path: name, Err: err}
		}
	}
	return nil
}
