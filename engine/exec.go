package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"nook/containers"
	"nook/internal/fdpass"
)

// ExecOptions describe one more process of a container that runs.
type ExecOptions struct {
	Command     []string
	Env         []string // KEY=VALUE over the container's
	User        string   // name|uid[:group|gid]; "": the container's
	WorkDir     string   // "": the container's
	Interactive bool
	TTY         bool
	Detach      bool
}

// Exec runs a command in a container and returns its exit code. A ctx that
// ends leaves it running; Detach returns when it runs.
func (e *Engine) Exec(ctx context.Context, nameOrID string, o ExecOptions, streams Streams) (code int, err error) {
	req := containers.ExecRequest{
		Args: o.Command, Env: environ(o.Env), User: o.User, WorkingDir: o.WorkDir,
		TTY: o.TTY, OpenStdin: o.Interactive, Detach: o.Detach,
	}
	if streams.Terminal != nil && o.TTY {
		if req.Rows, req.Cols, err = streams.Terminal.Size(); err != nil {
			return 0, fmt.Errorf("read the terminal's size: %w", err)
		}
	}
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return 0, err
	}
	conn, err := connect(ctx, ct)
	if err != nil {
		return 0, err
	}
	if _, err := conn.Ask(ctx, containers.Request{Verb: containers.VerbExec, Exec: &req}); err != nil || o.Detach {
		_ = conn.Close()
		return 0, err
	}
	if !o.Interactive {
		streams.In = nil
	}
	// As docker's: ^C ends this command, and a process without a terminal goes on.
	streams.KeepSignals = true
	t := newTalk(conn, conn, streams)
	defer t.close()
	code, err = t.run(ctx, nil)
	if errors.Is(err, ErrDetached) {
		if cfg, err := ct.Config(); err == nil {
			e.event("exec_detach", cfg)
		}
	}
	return code, err
}

// environ gives names without a value the caller's, as run does.
func environ(list []string) []string {
	return environment(nil, list, nil)
}

// Dial connects to an address in a container's network through its monitor: no
// published port is needed. network is tcp, udp or unix (a path in the
// container); a host is an address or localhost.
func (e *Engine) Dial(ctx context.Context, nameOrID, network, address string) (net.Conn, error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, ct)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Ask(ctx, containers.Request{Verb: containers.VerbDial, Network: network, Address: address}); err != nil {
		return nil, err
	}
	sock, err := conn.File()
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	defer sock.Close()
	f, err := fdpass.Receive(sock, "connection")
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	defer f.Close()
	return asConn(f, address)
}

func asConn(f *os.File, address string) (net.Conn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}
