package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What has to hold after every kill.

// lookAround lists, inspects, starts and removes what is there, and wants
// nothing to be left. All that is wrong goes to s.bad.
func (s *scene) lookAround(v torment, random *rand.Rand) {
	s.family.command = 0
	if v.argv[0] == "rename" {
		s.otherName()
	}
	if v.argv[0] == "commit" {
		s.goesOn()
	}
	handled := false
	for _, c := range s.listed() {
		if c.name != bystander {
			s.handle(c, random)
			handled = true
		}
	}
	if handled {
		for _, c := range s.listed() {
			if c.name != bystander {
				s.complain("%v is listed after its removal", c)
			}
		}
	}
	// The name is free, and what a kill left half made is swept.
	s.must("create", "--name", victim, "busybox", "true")
	s.must("rm", victim)
	s.images(v)
	if out := s.must("exec", bystander, "echo", "well"); out != "well\n" {
		s.complain("the bystander says %q", out)
	}
	s.nothingLeft()
	if len(s.bad) > 0 {
		s.evidence()
	}
}

// listing is a line of nook ps.
type listing struct{ id, name, state string }

func (s *scene) listed() []listing {
	out := s.must("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}")
	var list []listing
	for line := range strings.Lines(out) {
		var c listing
		if n, _ := fmt.Sscan(line, &c.id, &c.name, &c.state); n != 3 || len(c.id) != 64 {
			s.complain("nook ps -a says %q", line)
			continue
		}
		list = append(list, c)
		if c.name != bystander {
			s.seen[c.id] = true
		}
	}
	return list
}

// otherName: what isn't a container's name, as the list has it, is free.
func (s *scene) otherName() {
	for _, c := range s.listed() {
		if c.name != bystander {
			other := map[string]string{victim: renamed, renamed: victim}[c.name]
			s.must("create", "--name", other, "busybox", "true")
			s.must("rm", other)
		}
	}
}

// goesOn: whoever pauses a container for a while doesn't leave it so.
func (s *scene) goesOn() {
	err := until(func() error {
		for _, c := range s.listed() {
			if c.state == "paused" {
				return fmt.Errorf("%v was left so by a commit", c)
			}
		}
		return nil
	})
	if err != nil {
		s.complain("%v", err)
	}
}

// now is the container's state at this moment, "" when it is gone.
func (s *scene) now(id string) string {
	for _, c := range s.listed() {
		if c.id == id {
			return c.state
		}
	}
	return ""
}

// handle does with a container what its state allows, and removes it. One may
// end, and with --rm go, at any moment: then the refusal has to fit.
func (s *scene) handle(c listing, random *rand.Rand) {
	if out, code := s.nook("inspect", "--type", "container", c.id); code != 0 && s.now(c.id) != "" {
		s.complain("inspect of %v exits with %d and says %q", c, code, out)
	}
	if out, code := s.nook("inspect", c.name); code != 0 && s.now(c.id) != "" {
		s.complain("inspect of %v by its name exits with %d and says %q", c, code, out)
	}
	if random.IntN(2) == 0 {
		s.wake(c)
	}
	out, code := s.nook("rm", "-f", c.id)
	if code != 0 && s.now(c.id) != "" {
		s.complain("rm -f of %v exits with %d and says %q", c, code, out)
	}
}

// wake makes a container run, whatever it does now, and sees that it does.
func (s *scene) wake(c listing) {
	late := time.Now().Add(patience)
	for {
		state := s.now(c.id)
		var args []string
		switch state {
		case "":
			return
		case "running":
			args = []string{"exec", c.id, "true"}
		case "paused":
			args = []string{"unpause", c.id}
		case "restarting":
			args = []string{"stop", "-t", "0", c.id}
		default:
			args = []string{"start", c.id}
		}
		out, code := s.nook(args...)
		if code == 0 && (args[0] == "exec" || args[0] == "start") {
			return
		}
		// It may have gone on meanwhile.
		if again := s.now(c.id); code != 0 && again == state && state != "running" || time.Now().After(late) {
			s.complain("%s of %v exits with %d and says %q", args[0], c, code, out)
			return
		}
	}
}

// images: the image runs; what was committed is a whole one or none; and
// nothing else takes up room.
func (s *scene) images(v torment) {
	if out := s.must("run", "--rm", "busybox", "echo", "well"); out != "well\n" {
		s.complain("the image says %q", out)
	}
	if v.argv[0] == "commit" && strings.Contains(s.must("images", "--format", "{{.Repository}}"), committed) {
		if out := s.must("run", "--rm", committed, "echo", "well"); out != "well\n" {
			s.complain("the committed image says %q", out)
		}
		s.must("rmi", committed)
	}
	if s.stored() == s.before && len(s.halfMade()) == 0 {
		return
	}
	// What a kill left is taken by the next who adds or removes an image.
	s.must("run", "--name", victim, "busybox", "touch", "/written") // or there is no layer to remove
	s.must("commit", victim, committed)
	s.must("rm", victim)
	s.must("rmi", committed)
	if now := s.stored(); now != s.before {
		s.complain("the store holds\n%s\nand held\n%s", now, s.before)
	}
}

// nothingLeft: but for the bystander no container, process, mount, socket or
// half-made file.
func (s *scene) nothingLeft() {
	for _, r := range s.family.others() {
		if !ended(r.pid, patience) {
			s.complain("%v is left", r)
			_ = unix.Kill(r.pid, unix.SIGKILL)
		}
	}
	s.family.list() // reaps
	list, _ := os.ReadDir(filepath.Join(s.root, "containers"))
	directories := 0
	for _, e := range list {
		if len(e.Name()) == 64 {
			directories++
		} else if e.Name() != "names" && !strings.HasPrefix(e.Name(), ".skeleton") {
			s.complain("left: containers/%s", e.Name())
		}
	}
	if directories != 1 {
		s.complain("%d directories of containers are left beside the bystander's", directories-1)
	}
	names, _ := os.ReadDir(filepath.Join(s.root, "containers/names"))
	for _, e := range names {
		if e.Name() != bystander {
			s.complain("left: the name %s", e.Name())
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, s.dir) {
			s.complain("mounted: %s", line)
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(s.dir, "run/nook/*"))
	groups := s.groups()
	if len(groups) > 0 { // the next who pauses takes them
		s.must("pause", bystander)
		s.must("unpause", bystander)
		groups = s.groups()
	}
	for _, name := range append(append(append(s.halfMade(), entries(filepath.Join(s.dir, "tmp"))...), sockets...), groups...) {
		s.complain("left: %s", name)
	}
}

// groups are the cgroups of containers that were there.
func (s *scene) groups() []string {
	names, _ := filepath.Glob("/sys/fs/cgroup/*/nook-pause-*")
	more, _ := filepath.Glob("/sys/fs/cgroup/nook-pause-*")
	return slices.DeleteFunc(append(names, more...), func(name string) bool {
		_, id, _ := strings.Cut(filepath.Base(name), "pause-")
		return !s.seen[id]
	})
}

// evidence adds what helps to understand.
func (s *scene) evidence() {
	names, _ := filepath.Glob(filepath.Join(s.root, "containers/*/*"))
	for _, pattern := range []string{"containers/names/*", "containers/*/.*", "images/.staging/*", "layers/.staging/*"} {
		more, _ := filepath.Glob(filepath.Join(s.root, pattern))
		names = append(names, more...)
	}
	s.complain("there is\n%s", join(names))
	for _, r := range s.family.others() {
		s.complain("there runs %v", r)
	}
}
