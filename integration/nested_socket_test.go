package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nook/internal/frame"
	"nook/internal/testenv"
)

// bindRefused is a filter that refuses to bind a socket whose address has that
// many bytes, 0 for any: a file system without sockets.
func bindRefused(path string) []string {
	if path == "" {
		return []string{"bind=EPERM"}
	}
	const family, end = 2, 1 // struct sockaddr_un: the family before the path, a NUL behind it
	return []string{fmt.Sprintf("bind:2&0xffffffff==%d=EPERM", family+len(path)+end)}
}

// running is a container that waits for the end of its standard input.
type running struct {
	cmd    *exec.Cmd
	end    func()
	socket string // as its state says
	dir    string
}

// runCat starts a container and waits until its monitor has written its state.
func runCat(t *testing.T, n *nested) running {
	t.Helper()
	r := running{cmd: n.nook("run", "--rm", "-i", "busybox", "sh", "-c", "echo ready; cat")}
	in, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, _ := lines.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the container says %q", line)
	}
	r.end = func() {
		t.Helper()
		fmt.Fprintln(in, "more")
		line, err := lines.ReadString('\n')
		_ = in.Close()
		if werr := r.cmd.Wait(); line != "more\n" || err != nil || werr != nil {
			t.Errorf("the container answers %q, %v, and ends with %v", line, err, werr)
		}
	}
	names, _ := filepath.Glob(filepath.Join(n.root, "containers", "????????????????????????????????*"))
	if len(names) != 1 {
		t.Fatalf("containers: %q, want one", names)
	}
	r.dir = names[0]
	var state struct{ Status, Socket string }
	for limit := deadline(); ; {
		data, err := os.ReadFile(filepath.Join(r.dir, "state.json"))
		if err == nil && json.Unmarshal(data, &state) == nil && state.Status == "running" {
			r.socket = state.Socket
			return r
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) || time.Now().After(limit) {
			t.Fatalf("the container's state: %s, %v", data, err)
		}
		time.Sleep(time.Millisecond) // between two looks: there is no other sign of it
	}
}

// greets checks that a monitor answers on its socket.
func greets(t *testing.T, path string) {
	t.Helper()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if kind, _, err := frame.NewReader(conn).Next(); kind != frame.Hello || err != nil {
		t.Errorf("the monitor says %d, %v, want a greeting", kind, err)
	}
}

// TestNestedControlSocket: it lies beside the record, or in the runtime
// directory, or nowhere, and the container runs all the same.
func TestNestedControlSocket(t *testing.T) {
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	const beside = "/proc/self/fd/4/sock"
	for _, test := range []struct {
		name  string
		rules []string
		want  string // of %: the container's id
	}{
		{"beside the record", nil, "sock"},
		{"in the runtime directory", bindRefused(beside), "run/nook/%.sock"},
		{"none", bindRefused(""), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNested(t, outer{})
			n.ids = "single" // newuidmap does not work behind a filter
			n.run(t, "nook", "load", "-q", "-i", n.archive())
			n.rules = test.rules
			r := runCat(t, n)
			socket := strings.Replace(test.want, "%", filepath.Base(r.dir), 1)
			switch test.want {
			case "sock":
				greets(t, filepath.Join(r.dir, "sock"))
			case "":
			default:
				socket = filepath.Join(n.dir, socket)
				greets(t, socket)
			}
			want(t, "socket in state.json", r.socket, socket)
			r.end()
			if left, _ := filepath.Glob(filepath.Join(n.dir, "run/nook/*")); len(left) > 0 {
				t.Errorf("left in the runtime directory: %q", left)
			}
		})
	}
	t.Run("info", func(t *testing.T) {
		n := newNested(t, outer{})
		n.ids = "single"
		n.rules = bindRefused("")
		wantFinding(t, n.do(t, n.nook("info", "--format", "json")).out, "sockets", "none", "bind a unix socket: operation not permitted", true)
	})
}

// TestNestedRuntimeDir: each reason to leave XDG_RUNTIME_DIR.
func TestNestedRuntimeDir(t *testing.T) {
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	fallback := fmt.Sprintf("nook-%d", os.Geteuid())
	for _, test := range []struct{ name, value, why string }{
		{"unset", "", "XDG_RUNTIME_DIR is unset"},
		{"not there", "$WORK/nothing", "is not a writable directory of ours"},
		{"a file", "$WORK/home/busybox.tar", "is not a writable directory of ours"},
		{"another's", "/", "is not a writable directory of ours"},
		{"relative", "run", "is not an absolute path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			testenv.Need(t, "no-login", func() error {
				dir := fmt.Sprintf("/run/user/%d", os.Geteuid())
				if _, err := os.Stat(dir); err == nil {
					return fmt.Errorf("this user is logged in: %s is there", dir)
				}
				return nil
			})
			if os.Geteuid() == 0 && test.value == "/" {
				return // it is root's
			}
			n := newNested(t, outer{})
			n.ids = "single"
			set := func(cmd *exec.Cmd) *exec.Cmd {
				cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+strings.ReplaceAll(test.value, "$WORK", n.dir))
				return cmd
			}
			n.run(t, "nook", "load", "-q", "-i", n.archive())
			a := n.do(t, set(n.cmd("nook", "info", "--format", "json")))
			wantFinding(t, a.out, "runtimeDirectory", filepath.Join(n.dir, "tmp", fallback), test.why, false)
			want(t, "output", n.do(t, set(n.cmd("nook", "run", "--rm", "busybox", "echo", "ok"))).out, "ok\n")
		})
	}
	t.Run("nowhere", func(t *testing.T) {
		// A directory of another's in the last place, and no sockets.
		n := newNested(t, outer{})
		n.ids = "single"
		n.run(t, "nook", "load", "-q", "-i", n.archive())
		if err := os.Symlink("/", filepath.Join(n.dir, "tmp", fallback)); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(filepath.Join(n.dir, "tmp", fallback))
		n.rules = bindRefused("/proc/self/fd/4/sock")
		cmd := n.nook("run", "--rm", "busybox", "sh", "-c", "echo ok; sleep 0.1; echo end")
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR=")
		want(t, "output", n.do(t, cmd).out, "ok\nend\n")
	})
}
