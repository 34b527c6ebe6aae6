package integration

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

var (
	torturePoints = flag.Int("torture", 20, "how often TestTorture kills, in each id mode")
	tortureSeed   = flag.Uint64("torture.seed", 0, "what TestTorture draws from; 0: another each time")
	tortureVerb   = flag.String("torture.verb", "", "the only verb that TestTorture uses")
)

// TestTorture kills any process of ours at any moment of any verb, and then
// wants every container to be listed, started or removed, and nothing left.
//
//	go test ./integration -run TestTorture/mapped -torture 500 -v
//
// A point is one verb, one moment in it (up to one and a half times as long as
// it takes) and one kill. The test process is a subreaper: whoever loses its
// parent comes to it, so that every process of ours stays below it.
func TestTorture(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		points := *torturePoints
		if testing.Short() || m.name == "root" {
			points = (points + 3) / 4
		}
		seed := *tortureSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Logf("%d points with -torture.seed %d", points, seed)
		adopt(t)
		tortures(t, m, busybox, points, rand.New(rand.NewPCG(seed, 0)))
	})
}

// adopt makes this process the parent of all that lose theirs.
func adopt(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		(&family{}).list() // reaps
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
}

const enough = 5 // failures are as good as more

func tortures(t *testing.T, m mode, busybox string, points int, random *rand.Rand) {
	s := newScene(t, m, busybox)
	torments := slices.DeleteFunc(torments(), func(v torment) bool {
		return *tortureVerb != "" && v.name != *tortureVerb
	})
	usual := make(map[string]time.Duration)
	hits := make(map[string]int)
	for n, failures := 0, 0; n < points && failures < enough; {
		if late, ok := t.Deadline(); ok && time.Until(late) < 2*tooLong {
			t.Logf("no time for more than %d points", n)
			if n == 0 {
				t.Error("none was made: give it a longer -timeout")
			}
			break
		}
		v := torments[random.IntN(len(torments))]
		if usual[v.name] == 0 {
			usual[v.name] = s.unharmed(v)
		}
		delay := time.Duration(random.Float64() * 1.5 * float64(usual[v.name]))
		said, bad := s.point(v, delay, random)
		if said == nil {
			continue // nobody was there to be killed
		}
		n++
		for _, hit := range said.hits {
			hits[hit]++
		}
		if len(bad) == 0 {
			continue
		}
		failures++
		t.Errorf("point %d: %s, %v of about %v in, kill %v of %v; it said %q\n%s", n, v.name,
			delay.Round(10*time.Microsecond), usual[v.name].Round(10*time.Microsecond), said.hits, said.alive, said.text, join(bad))
		s = newScene(t, m, busybox)
	}
	t.Logf("killed: %v", hits)
}

// outcome is what became of a tortured command.
type outcome struct {
	alive []string // what ran in that moment
	hits  []string // what was killed
	text  string   // what the command said
}

// point prepares a container, kills during a verb, and looks around. A nil
// outcome: there was nothing to kill.
func (s *scene) point(v torment, delay time.Duration, random *rand.Rand) (*outcome, []string) {
	s.bad = nil
	s.prepare(v)
	if len(s.bad) > 0 {
		return &outcome{text: "while it was prepared"}, s.bad
	}
	said, err := os.CreateTemp(s.dir, "said")
	if err != nil {
		return &outcome{}, []string{err.Error()}
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd := s.start(v, said)
	time.Sleep(delay) // the moment: nothing is waited for
	o := s.strike(cmd, random)
	s.finish(cmd)
	if o != nil {
		text, _ := os.ReadFile(said.Name())
		o.text = string(text)
	}
	s.lookAround(v, random)
	if o == nil && len(s.bad) > 0 {
		o = &outcome{}
	}
	return o, s.bad
}

// unharmed does a verb without a kill, and tells how long it took.
func (s *scene) unharmed(v torment) time.Duration {
	s.t.Helper()
	s.bad = nil
	s.prepare(v)
	began := time.Now()
	out, code := s.nook(v.args(s)...)
	took := time.Since(began)
	if code != 0 {
		s.t.Fatalf("%s exits with %d without any harm: %s", v.name, code, out)
	}
	s.lookAround(v, rand.New(rand.NewPCG(1, 1)))
	if len(s.bad) > 0 {
		s.t.Fatalf("%s, without any harm:\n%s", v.name, join(s.bad))
	}
	return took
}
