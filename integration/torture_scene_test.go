package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The containers' names in a scene.
const (
	victim    = "victim"
	renamed   = "renamed"
	bystander = "bystander"
	committed = "tortured"
)

// scene is a host with an image, a container that nobody touches, and the one
// that is tortured.
type scene struct {
	*host
	t      *testing.T
	family family
	bad    []string        // what is wrong
	before string          // what the image store held at the beginning
	seen   map[string]bool // ids of victims
}

func newScene(t *testing.T, m mode, busybox string) *scene {
	t.Helper()
	s := &scene{host: newTestHost(t, m), t: t, seen: make(map[string]bool)}
	h := s.host
	h.run(t, "nook", "load", "-q", "-i", busybox)
	for _, dir := range []string{"in", "out"} {
		for i := range 20 {
			write(t, filepath.Join(h.dir, dir, fmt.Sprint("f", i)), strings.Repeat("x", 10_000*i))
		}
	}
	h.run(t, "nook", "run", "-d", "--name", bystander, "busybox", "sleep", "100000")
	s.family.spared = s.family.list()
	if len(s.family.spared) == 0 {
		t.Fatal("no process of the bystander is seen below this one: does /proc/PID/task/TID/children work?")
	}
	t.Cleanup(func() { // before the host's own
		h.run(t, "nook", "rm", "-f", bystander)
		s.family.list() // reaps
	})
	s.before = s.stored()
	return s
}

// stored lists what the store of images and layers holds.
func (s *scene) stored() string {
	var out []string
	for _, pattern := range []string{"images/blobs/sha256/*", "layers/*", "layers/chains/*"} {
		names, _ := filepath.Glob(filepath.Join(s.root, pattern))
		for _, n := range names {
			if !strings.HasPrefix(filepath.Base(n), ".") { // locks and staging, which host.halfMade looks at
				out = append(out, strings.TrimPrefix(n, s.root+"/"))
			}
		}
	}
	return join(out)
}

func join(lines []string) string { return strings.Join(lines, "\n") }

func (s *scene) complain(format string, args ...any) {
	s.bad = append(s.bad, fmt.Sprintf(format, args...))
}

// tooLong is a hang: no command of ours waits that long here.
const tooLong = 2 * time.Minute

// nook runs a command to its end and returns all it said. One that hangs tells
// where.
func (s *scene) nook(args ...string) (said string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), tooLong)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "nook"), args...)
	cmd.Env, cmd.Dir = s.env(), s.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGQUIT) }
	cmd.WaitDelay = patience
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return err.Error(), -1
	}
	if ctx.Err() != nil {
		s.complain("nook %s hangs:\n%.8000s", strings.Join(args, " "), out.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// must is nook for what has to succeed.
func (s *scene) must(args ...string) string {
	out, code := s.nook(args...)
	if code != 0 {
		s.complain("nook %s exits with %d and says %q", strings.Join(args, " "), code, out)
	}
	return out
}

// start starts a verb in a process group of its own.
func (s *scene) start(v torment, said *os.File) *exec.Cmd {
	s.t.Helper()
	cmd := s.cmd("nook", v.args(s)...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return cmd
}

// finish waits for the end of a tortured command, and of what it started but
// the containers.
func (s *scene) finish(cmd *exec.Cmd) {
	if !ended(cmd.Process.Pid, tooLong) {
		_ = cmd.Process.Signal(unix.SIGQUIT)
		s.complain("the command hangs")
		if !ended(cmd.Process.Pid, patience) {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	for _, p := range s.family.others() {
		if p.kind == kindStage && !ended(p.pid, patience) {
			s.complain("%v outlives its command", p)
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
	}
}

// torment is a verb, and the container it wants.
type torment struct {
	name  string
	state string // of the victim: "" for none, created, exited, running, paused
	argv  []string
}

func (v torment) args(s *scene) []string {
	var out []string
	for _, a := range v.argv {
		out = append(out, strings.ReplaceAll(a, "$DIR", s.dir))
	}
	return out
}

// script is what a container of ours does: it writes; the first time it ends,
// later it stays.
const script = `test -e /first && exec sleep 100000
mkdir /d; for i in 0 1 2 3 4 5 6 7 8 9; do echo $i >/d/$i; done
dd if=/dev/zero of=/d/big bs=1M count=2 2>/dev/null; touch /first`

func torments() []torment {
	run := func(args ...string) []string { return append([]string{"run", "--name", victim}, args...) }
	short := []string{"busybox", "sh", "-c", "echo x >/x; echo hi; usleep 30000"}
	with := func(flags ...string) []string { return run(append(flags, short...)...) }
	return []torment{
		{"create", "", []string{"create", "--name", victim, "busybox", "true"}},
		{"run", "", with()},
		{"run -d", "", with("-d")},
		{"run --rm", "", with("--rm")},
		{"run --rm, unwritten", "", run("--rm", "busybox", "true")},
		{"run --rm -t", "", with("--rm", "-t")},
		{"run -d --rm", "", with("-d", "--rm")},
		{"run --init", "", with("--init")},
		{"run --restart", "", run("-d", "--restart", "always", "busybox", "true")},
		{"start", "created", []string{"start", victim}},
		{"start again", "exited", []string{"start", victim}},
		{"start -a", "created", []string{"start", "-a", victim}},
		{"restart", "running", []string{"restart", "-t", "0", victim}},
		{"restart, stopped", "exited", []string{"restart", "-t", "0", victim}},
		{"stop", "running", []string{"stop", "-t", "0", victim}},
		{"stop, paused", "paused", []string{"stop", "-t", "0", victim}},
		{"kill", "running", []string{"kill", victim}},
		{"exec", "running", []string{"exec", victim, "sh", "-c", "echo x >/x; usleep 20000"}},
		{"exec -t", "running", []string{"exec", "-t", victim, "usleep", "20000"}},
		{"exec -d", "running", []string{"exec", "-d", victim, "sleep", "100000"}},
		{"rm", "exited", []string{"rm", victim}},
		{"rm, created", "created", []string{"rm", victim}},
		{"rm -f", "running", []string{"rm", "-f", victim}},
		{"rm -f, paused", "paused", []string{"rm", "-f", victim}},
		{"commit", "exited", []string{"commit", victim, committed}},
		{"commit, running", "running", []string{"commit", victim, committed}},
		{"cp in", "exited", []string{"cp", "-q", "$DIR/in", victim + ":/in"}},
		{"cp in, running", "running", []string{"cp", "-q", "$DIR/in", victim + ":/in"}},
		{"cp out", "exited", []string{"cp", "-q", victim + ":/bin", "$DIR/out"}},
		{"cp out, running", "running", []string{"cp", "-q", victim + ":/bin", "$DIR/out"}},
		{"export", "exited", []string{"export", "-o", "$DIR/exported", victim}},
		{"export, running", "running", []string{"export", "-o", "$DIR/exported", victim}},
		{"rename", "running", []string{"rename", victim, renamed}},
		{"update", "exited", []string{"update", "--restart", "on-failure:3", victim}},
		{"pause", "running", []string{"pause", victim}},
		{"unpause", "paused", []string{"unpause", victim}},
		{"diff", "exited", []string{"diff", victim}},
		{"ps", "exited", []string{"ps", "-a", "-s"}},
		{"prune", "exited", []string{"container", "prune", "-f"}},
	}
}

// prepare makes the victim as the verb wants it.
func (s *scene) prepare(v torment) {
	switch v.state {
	case "":
		return
	case "created":
		s.must("create", "--name", victim, "busybox", "sh", "-c", script)
		return
	case "exited":
		s.must("run", "--name", victim, "busybox", "sh", "-c", script)
		return
	}
	s.must("run", "-d", "--name", victim, "busybox", "sleep", "100000")
	if v.state == "paused" {
		s.must("pause", victim)
	}
}
