package integration

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

var storePoints = flag.Int("torture.store", 16, "how often TestStoreTorture kills, in each id mode")

// storeVerb is a command that changes the store, or reads all of an image.
type storeVerb struct {
	args []string
	// makes is the image that is there once it succeeded; takes are those that
	// may be gone once it began.
	makes string
	takes []string
	// before makes sure that there is something to do, and so does prepare.
	before  [][]string
	prepare func()
	// again says that it succeeds when it is done once more after a kill.
	again bool
	// after looks at what it did, once it was done again.
	after func() error
}

// storeVerbs are drawn from. What is called keep is no verb's to take.
func storeVerbs(busybox, flat string, from, to *remote) map[string]storeVerb {
	load := []string{"load", "-q", "-i", busybox}
	importing := []string{"import", flat, "flat:1"}
	app, kept := from.host+"/app:1", to.host+"/kept:1"
	pull := []string{"pull", app}
	return map[string]storeVerb{
		"load":              {args: load, makes: "busybox", again: true},
		"load a new":        {args: load, makes: "busybox", again: true, before: [][]string{{"rmi", "-f", "busybox"}}, takes: []string{"busybox"}},
		"import":            {args: importing, makes: "flat:1", again: true},
		"pull":              {args: pull, makes: app, again: true},
		"pull a new":        {args: pull, makes: app, again: true, before: [][]string{{"rmi", "-f", app}}, takes: []string{app}},
		"rmi of the pulled": {args: []string{"rmi", "-f", app}, takes: []string{app}, before: [][]string{pull}},
		"push": {
			args: []string{"push", kept}, again: true, before: [][]string{{"tag", "keep:1", kept}},
			prepare: to.Clear, after: func() error { return to.complete("kept", "1") },
		},
		"rmi":          {args: []string{"rmi", "-f", "busybox"}, takes: []string{"busybox"}, before: [][]string{load}},
		"rmi of two":   {args: []string{"rmi", "-f", "busybox", "flat:1"}, takes: []string{"busybox", "flat:1"}, before: [][]string{load, importing}},
		"image prune":  {args: []string{"image", "prune", "-f"}, before: [][]string{importing, importing}},
		"prune all":    {args: []string{"image", "prune", "-af"}, takes: []string{"busybox", "flat:1", "made:1", "tagged:1", app, kept}, before: [][]string{load, importing}},
		"system prune": {args: []string{"system", "prune", "-f", "--filter", "label!=keep"}, before: [][]string{importing, importing}},
		"repair":       {args: []string{"system", "check", "--repair"}},
		"commit":       {args: []string{"commit", "box", "made:1"}, makes: "made:1"},
		"tag":          {args: []string{"tag", "keep:1", "tagged:1"}, makes: "tagged:1"},
		"save":         {args: []string{"save", "-o", "saved.tar", "keep:1"}},
		"run":          {args: []string{"run", "--rm", "keep:1", "true"}},
	}
}

// TestStoreTorture kills commands that change the store at any moment, and wants
// it to pass system check, with all that was committed.
//
//	go test ./integration -run TestStoreTorture/mapped -torture.store 300 -v
//
// The seed is -torture.seed.
func TestStoreTorture(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	dir := shared(t)
	busybox, keep := filepath.Join(dir, "busybox.tar"), filepath.Join(dir, "keep.tar")
	writeImage(t, busybox, func(i *testimage.Image) {
		i.Layers = append(i.Layers, testimage.Layer{Entries: []testimage.Entry{testimage.File("etc/more", 0o644, "more")}})
	})
	writeImage(t, keep, func(i *testimage.Image) { i.Name = "keep:1" })
	flat := filepath.Join(dir, "flat.tar")
	body, err := testimage.Layer{Entries: []testimage.Entry{testimage.File("file", 0o644, strings.Repeat("x", 1<<20))}}.Tar()
	if err := errors.Join(err, os.WriteFile(flat, body, 0o644)); err != nil {
		t.Fatal(err)
	}
	eachMode(t, func(t *testing.T, m mode) {
		points := *storePoints
		if testing.Short() || m.name == "root" {
			points = (points + 3) / 4
		}
		seed := *tortureSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Logf("%d points with -torture.seed %d", points, seed)
		s := &storeScene{t: t, host: newTestHost(t, m), random: rand.New(rand.NewPCG(seed, 1)), usual: map[string]time.Duration{}}
		s.host.run(t, "nook", "load", "-q", "-i", keep)
		s.host.run(t, "nook", "create", "--name", "box", "-l", "keep=yes", "keep:1", "true")
		s.there = []string{"keep:1"}
		from := newRemote(t)
		from.image(t, noisy(4, 512<<10))
		verbs := storeVerbs(busybox, flat, from, newRemote(t))
		names := make([]string, 0, len(verbs))
		for name := range verbs {
			names = append(names, name)
		}
		slices.Sort(names)
		for n := range points {
			if late, ok := t.Deadline(); ok && time.Until(late) < tooLong {
				t.Logf("no time for more than %d points", n)
				break
			}
			name := names[s.random.IntN(len(names))]
			if !s.point(n, name, verbs[name]) {
				break
			}
		}
		s.end()
	})
}

// storeScene is one data root that is tortured.
type storeScene struct {
	t      *testing.T
	host   *host
	random *rand.Rand
	usual  map[string]time.Duration
	there  []string // images that must be there
}

// point kills one verb and looks around.
func (s *storeScene) point(n int, name string, v storeVerb) bool {
	for _, args := range v.before {
		_, _ = s.host.answer(s.t, "nook", args...) // it may be so already
	}
	if v.prepare != nil {
		v.prepare()
	}
	s.there = slices.DeleteFunc(s.there, func(image string) bool { return slices.Contains(v.takes, image) })
	if s.usual[name] == 0 {
		begin := time.Now()
		s.try(v, -1)
		s.usual[name] = time.Since(begin)
		return true
	}
	delay := time.Duration(s.random.Float64() * 1.2 * float64(s.usual[name]))
	said := s.try(v, delay)
	if found, code := s.check(); code != 0 {
		s.t.Errorf("point %d: %s, killed %v of about %v in; it said %q, and system check exits with %d:\n%s",
			n, name, delay, s.usual[name], said, code, found)
		return false
	}
	for _, image := range s.there {
		if text, code := s.host.answer(s.t, "nook", "image", "inspect", image); code != 0 {
			s.t.Errorf("point %d: %s, killed %v in; it said %q, and %s is lost: %s", n, name, delay, said, image, text)
			return false
		}
	}
	if text, code := s.host.answer(s.t, "nook", "run", "--rm", "keep:1", "true"); code != 0 {
		s.t.Errorf("point %d: %s, killed %v in; it said %q, and keep:1 doesn't run: %s", n, name, delay, said, text)
		return false
	}
	if err := s.again(v); err != nil {
		s.t.Errorf("point %d: %s, killed %v in; it said %q, and once more: %v", n, name, delay, said, err)
		return false
	}
	return true
}

// again does what was killed, and it works.
func (s *storeScene) again(v storeVerb) error {
	if !v.again {
		return nil
	}
	if text, code := s.host.answer(s.t, "nook", v.args...); code != 0 {
		return fmt.Errorf("it exits with %d: %s", code, text)
	}
	if v.makes != "" {
		if text, code := s.host.answer(s.t, "nook", "run", "--rm", "--network", "none", "--entrypoint", "true", v.makes); code != 0 && v.makes != "flat:1" {
			return fmt.Errorf("%s doesn't run: %s", v.makes, text)
		}
		if !slices.Contains(s.there, v.makes) {
			s.there = append(s.there, v.makes)
		}
	}
	if v.after != nil {
		return v.after()
	}
	return nil
}

// try runs a verb and kills it and its children after the delay; a negative one
// means never.
func (s *storeScene) try(v storeVerb, delay time.Duration) (said string) {
	s.t.Helper()
	cmd := s.host.cmd("nook", v.args...)
	cmd.Dir = s.host.dir
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var killer *time.Timer
	if delay >= 0 {
		target := -cmd.Process.Pid // the stage too
		if s.random.IntN(2) == 0 {
			target = cmd.Process.Pid // which the stage notices
		}
		killer = time.AfterFunc(delay, func() { _ = syscall.Kill(target, syscall.SIGKILL) })
	}
	err := cmd.Wait()
	if killer != nil {
		killer.Stop()
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatal(err)
	}
	if err == nil && v.makes != "" && !slices.Contains(s.there, v.makes) {
		s.there = append(s.there, v.makes)
	}
	// A stage whose command is gone ends by itself.
	for end := time.Now().Add(patience); len(s.host.processes()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("processes outlive %v: %v", v.args, s.host.processes())
		}
	}
	return text.String()
}

func (s *storeScene) check(more ...string) (found string, code int) {
	s.t.Helper()
	cmd := s.host.cmd("nook", append([]string{"system", "check"}, more...)...)
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// end wants that a repair leaves nothing to find, and nothing lost.
func (s *storeScene) end() {
	t := s.t
	if found, code := s.check("--repair"); code != 0 {
		t.Errorf("system check --repair exits with %d:\n%s", code, found)
	}
	if found, code := s.check(); code != 0 || !strings.Contains(found, ": 0 damaged, 0 left over\n") {
		t.Errorf("after a repair system check exits with %d:\n%s", code, found)
	}
	s.host.run(t, "nook", "start", "-a", "box")
	s.host.run(t, "nook", "save", "-o", filepath.Join(s.host.dir, "end.tar"), "keep:1")
	s.host.run(t, "nook", "rm", "box")
	s.host.run(t, "nook", "system", "prune", "-af")
	if left, _ := filepath.Glob(filepath.Join(s.host.root, "images/blobs/sha256/*")); len(left) > 0 {
		t.Errorf("blobs left: %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.host.root, "layers/[0-9a-f]*")); len(left) > 1 { // chains
		t.Errorf("layers left: %v", left)
	}
}
