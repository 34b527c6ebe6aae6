package engine

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/build"
)

// echoAgent listens where an agent would, and says everything again.
func echoAgent(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return socket
}

func TestAgentIsForwarded(t *testing.T) {
	// Longer than the path of a socket may be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link") // as SSH_AUTH_SOCK may be
	if err := os.Symlink(echoAgent(t), link); err != nil {
		t.Fatal(err)
	}
	stop, err := forwardAgent(dir, "0", link)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	connect := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("unix", "0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	open, conn := connect(), connect()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(conn); err != nil || string(said) != "hello" {
		t.Errorf("the agent said %q, %v", said, err)
	}
	if _, err := io.WriteString(open, "x"); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(open, make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	stop() // waits for all that it began
	if rest, _ := io.ReadAll(open); len(rest) > 0 {
		t.Errorf("after the end: %q", rest)
	}
	if _, err := net.Dial("unix", "0"); err == nil {
		t.Error("it still listens")
	}
}

func TestBuildAgentHasOwnerAndMode(t *testing.T) {
	for ids, want := range map[string]string{"mapped": "0:0 600\n7:8 660\n", "single": "0:0 600\n0:0 660\n"} {
		t.Run(ids, func(t *testing.T) {
			e := loaded(t, ids, nil)
			dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\n" +
				"RUN --mount=type=ssh stat -c '%u:%g %a' $SSH_AUTH_SOCK\n" +
				"RUN --mount=type=ssh,target=/s,uid=7,gid=8,mode=0660 stat -c '%u:%g %a' /s\n"})
			b := mustBuild(t, e, dir, func(o *build.Options) { o.SSH = map[string]string{"default": echoAgent(t)} })
			if b.out != want {
				t.Errorf("got %q, want %q", b.out, want)
			}
			if left, _ := filepath.Glob(filepath.Join(e.root, "layers", "*", agents)); len(left) > 0 {
				t.Errorf("left in layers: %q", left)
			}
		})
	}
}
