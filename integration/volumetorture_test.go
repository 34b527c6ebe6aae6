package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

var volumePoints = flag.Int("torture.volumes", 4, "how often TestVolumeTorture kills, in each id mode")

// seedFiles are what the image has where its volume is.
const seedFiles = 120

// TestVolumeTorture kills any process of ours at any moment of the verbs that
// make, fill and remove volumes. A volume is then empty, whole or gone, whoever
// uses it next finds it whole, and what is left goes with a prune.
//
//	go test ./integration -run TestVolumeTorture/mapped -torture.volumes 100 -v
func TestVolumeTorture(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	seeded := filepath.Join(shared(t), "seeded.tar")
	writeImage(t, seeded, func(img *testimage.Image) {
		img.Name = "seeded:1"
		layer := testimage.Layer{Entries: []testimage.Entry{testimage.Dir("srv", 0o755), testimage.Dir("srv/data", 0o750).Owned(33, 33)}}
		for i := range seedFiles {
			name := fmt.Sprintf("srv/data/d%d/f%d", i%7, i)
			layer.Entries = append(layer.Entries, testimage.File(name, 0o644, strings.Repeat(name, 200)).Owned(i, i))
		}
		img.Layers = append(img.Layers, layer)
		img.Config.Volumes = map[string]struct{}{"/srv/data": {}}
	})
	eachMode(t, func(t *testing.T, m mode) {
		points := *volumePoints
		if testing.Short() {
			points = (points + 3) / 4
		}
		seed := *tortureSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Logf("%d points with -torture.seed %d", points, seed)
		adopt(t)
		s := newScene(t, m, busybox)
		s.run(t, "nook", "load", "-q", "-i", seeded)
		tortureVolumes(t, s, points, rand.New(rand.NewPCG(seed, 0)))
	})
}

// volumeTorment is a verb over volumes, and what is there before it.
type volumeTorment struct {
	torment
	before [][]string
}

// volumeTorments are all of them; archive has the files of a filled volume.
func volumeTorments(archive string) []volumeTorment {
	fill := []string{"run", "--rm", "-v", "box:/srv/data", "seeded:1", "true"}
	one := func(name string, argv []string, before ...[]string) volumeTorment {
		return volumeTorment{torment{name: name, argv: argv}, before}
	}
	return []volumeTorment{
		one("first fill", []string{"run", "--name", victim, "-v", "box:/srv/data", "seeded:1", "true"}),
		one("create with a fill", []string{"create", "--name", victim, "-v", "box:/srv/data", "seeded:1", "true"}),
		one("anonymous with --rm", []string{"run", "--rm", "--name", victim, "-v", "/more", "seeded:1", "touch", "/srv/data/x", "/more/x"}),
		one("anonymous, rm -v", []string{"rm", "-v", victim}, []string{"run", "--name", victim, "seeded:1", "touch", "/srv/data/x"}),
		one("volume create", []string{"volume", "create", "--label", "a=b", "box"}),
		one("volume import", []string{"volume", "import", "box", archive}),
		one("volume rm", []string{"volume", "rm", "box"}, fill),
		one("volume prune", []string{"volume", "prune", "-af"}, fill, []string{"volume", "create"}, []string{"volume", "create", "more"}),
	}
}

func tortureVolumes(t *testing.T, s *scene, points int, random *rand.Rand) {
	whole := s.sum("nocopy", []string{"run", "--rm", "-v", "box:/srv/data", "seeded:1", "true"})
	if !strings.HasPrefix(whole, fmt.Sprint(seedFiles, " ")) {
		t.Fatalf("the filled volume: %q", whole)
	}
	archive := filepath.Join(s.dir, "whole.tar")
	s.must("volume", "export", "-o", archive, "box")
	s.clearVolumes()
	usual := make(map[string]time.Duration)
	hits := make(map[string]int)
	list := volumeTorments(archive)
	for n, failures := 0, 0; n < points && failures < enough; {
		v := list[random.IntN(len(list))]
		prepare := func() {
			s.bad = nil
			for _, argv := range v.before {
				s.must(argv...)
			}
		}
		if usual[v.name] == 0 {
			prepare()
			began := time.Now()
			s.must(v.argv...)
			usual[v.name] = time.Since(began)
			s.clearVolumes()
		}
		prepare()
		delay := time.Duration(random.Float64() * 1.5 * float64(usual[v.name]))
		said, err := os.CreateTemp(s.dir, "said")
		if err != nil {
			t.Fatal(err)
		}
		cmd := s.start(v.torment, said)
		time.Sleep(delay) // the moment: nothing is waited for
		o := s.strike(cmd, random)
		s.finish(cmd)
		text, _ := os.ReadFile(said.Name())
		_ = said.Close()
		_ = os.Remove(said.Name())
		s.volumesAreSound(whole)
		if o != nil {
			n++
			for _, hit := range o.hits {
				hits[hit]++
			}
		}
		if len(s.bad) > 0 {
			failures++
			t.Errorf("point %d: %s, %v of about %v in, %+v; it said %q\n%s", n, v.name, delay, usual[v.name], o, text, join(s.bad))
		}
	}
	t.Logf("killed: %v", hits)
}

// sum tells how many files the volume has, and a sum of them, after a command.
func (s *scene) sum(mode string, first ...[]string) string {
	for _, argv := range first {
		s.must(argv...)
	}
	return strings.TrimSpace(s.must("run", "--rm", "-v", "box:/srv/data:"+mode, "seeded:1", "sh", "-c",
		"cd /srv/data && echo $(find . -type f | wc -l) $(find . -type f | sort | xargs cat /dev/null | md5sum) $(stat -c %a:%u .)"))
}

// volumesAreSound looks at the volume, as it is and as the next one finds it,
// and removes everything.
func (s *scene) volumesAreSound(whole string) {
	names := strings.Fields(s.must("volume", "ls", "-q"))
	for _, name := range names {
		if name != "box" {
			continue
		}
		s.nook("rm", "-f", victim) // which may have it, in any state
		if as := s.sum("nocopy"); as != whole && !strings.HasPrefix(as, "0 ") {
			s.complain("the volume is neither empty nor whole: %q, want %q", as, whole)
		}
	}
	if as := s.sum("rw"); as != whole {
		s.complain("the next one finds %q, want %q", as, whole)
	}
	s.clearVolumes()
}

// clearVolumes removes what a kill left, in the way that people have.
func (s *scene) clearVolumes() {
	if out, code := s.nook("rm", "-f", "-v", victim); code != 0 && !strings.Contains(out, "no such container") {
		s.complain("nook rm -f -v: %s", out)
	}
	s.must("volume", "prune", "-af")
	s.must("ps", "-a") // sweeps
	for _, name := range entries(filepath.Join(s.root, "volumes")) {
		if !strings.HasSuffix(name, ".lock") {
			s.complain("after a prune there is %s", name)
		}
	}
}
