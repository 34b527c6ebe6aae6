package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

var buildPoints = flag.Int("torture.build", 6, "how often TestBuildTorture kills, in each id mode")

// tortured has two stages side by side, every kind of step, and a command that
// leaves another behind.
const tortured = `FROM busybox AS one
COPY --chown=3:4 ctx /one
RUN --mount=type=cache,target=/cache set -e; sleep 1000 & echo one >/one/made; mkdir -p /one/deep/er; echo x >>/cache/x
WORKDIR /one/work
FROM busybox AS two
ADD a.tar /two
RUN --mount=type=bind,from=busybox,source=/bin,target=/bound --mount=type=tmpfs,target=/t \
    set -e; dd if=/dev/zero of=/two/zeros bs=64k count=64 2>/dev/null; rm -r /home; cp /bound/busybox /two/box
FROM one
COPY --from=two /two /two
COPY --link ctx /linked
RUN set -e; test -f /two/box; chmod 4755 /two/box; rm /one/made; echo last >/last
CMD ["cat", "/last"]
`

// TestBuildTorture kills any process of a build at any moment. Then nothing is
// left running or mounted, the data root is whole, and the next build is the
// same image to the digest, whatever it takes from the cache. Every second
// build has a cache in a registry too; most of these are killed while it waits
// for the answer to some request.
//
//	go test ./integration -run TestBuildTorture/mapped -torture.build 100 -v
//
// The seed is -torture.seed.
func TestBuildTorture(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		points := *buildPoints
		if testing.Short() || m.name == "root" {
			points = (points + 3) / 4
		}
		seed := *tortureSeed
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Logf("%d points with -torture.seed %d", points, seed)
		adopt(t)
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", busybox)
		dir := filepath.Join(h.dir, "src")
		makeTortured(t, dir)
		b := &buildScene{
			scene:  &scene{t: t, host: h, seen: map[string]bool{}},
			dir:    dir,
			random: rand.New(rand.NewPCG(seed, 2)),
			cache:  newStopping(t),
		}
		begin := time.Now()
		b.want = b.build()
		b.usual = time.Since(begin)
		b.countRequests()
		hits := map[string]int{}
		for n := 0; n < points; {
			if late, ok := t.Deadline(); ok && time.Until(late) < tooLong {
				t.Logf("no time for more than %d points", n)
				break
			}
			said := b.point()
			if said == nil {
				continue // nobody was there to be killed
			}
			n++
			for _, hit := range said.hits {
				hits[hit]++
			}
			if bad := b.look(); bad != "" {
				t.Fatalf("point %d: killed %v of %v; it said %q\n%s", n, said.hits, said.alive, said.text, bad)
			}
		}
		t.Logf("killed: %v", hits)
		// What a kill left in a layer goes with it.
		b.forget()
	})
}

// makeTortured makes the context.
func makeTortured(t *testing.T, dir string) {
	t.Helper()
	for n := range 40 {
		sub := filepath.Join(dir, "ctx", fmt.Sprint(n%4))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(sub, fmt.Sprint(n)), strings.Repeat(fmt.Sprintln(n), 1000))
	}
	write(t, filepath.Join(dir, "Dockerfile"), tortured)
	body, err := testimage.Layer{Entries: []testimage.Entry{testimage.File("in/tar", 0o644, strings.Repeat("x", 1<<20))}}.Tar()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.tar"), string(body))
}

// buildScene is one data root whose builds are killed.
type buildScene struct {
	*scene
	dir    string
	random *rand.Rand
	usual  time.Duration
	want   string // the image's id
	// cache is what some of the builds read and write, in that many requests.
	cache    *stopping
	requests int
}

func (b *buildScene) args(more ...string) []string {
	return append([]string{"build", "-q", "--timestamp", "1000000000", "-t", "made"}, append(more, b.dir)...)
}

// build builds without any harm and gives the image's id.
func (b *buildScene) build() string {
	b.t.Helper()
	return b.host.run(b.t, "nook", b.args()...)
}

// point kills during a build that has all to do, or what the kills before left.
func (b *buildScene) point() *outcome {
	if b.random.IntN(3) > 0 {
		b.forget()
	}
	args, wait, after := b.moment()
	said, err := os.CreateTemp(b.host.dir, "said")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd := b.host.cmd("nook", args...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	wait(ended)
	o := b.strike(cmd, b.random)
	after()
	<-ended
	if o != nil {
		text, _ := os.ReadFile(said.Name())
		o.text = string(text)
	}
	return o
}

// look tells what is wrong after a kill.
func (b *buildScene) look() string {
	if err := until(func() error {
		if there := b.family.others(); len(there) > 0 {
			return fmt.Errorf("still there: %v", there)
		}
		return nil
	}); err != nil {
		return err.Error()
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), b.host.dir) {
		return fmt.Sprintf("mounts: %v %s", err, mounts)
	}
	out, err := b.host.cmd("nook", "system", "check").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("system check: %v\n%s", err, out)
	}
	out, err = b.host.cmd("nook", b.args()...).Output()
	if err != nil || string(out) != b.want {
		return fmt.Sprintf("the next build: %v, %s instead of %s", err, out, b.want)
	}
	if bad := b.lookAtCache(); bad != "" {
		return bad
	}
	if left := entries(filepath.Join(b.host.root, "build", ".staging")); len(left) > 0 {
		return fmt.Sprintf("left by a build: %v", left)
	}
	out, err = b.host.cmd("nook", "run", "--rm", "made").CombinedOutput()
	if err != nil || string(out) != "last\n" {
		return fmt.Sprintf("run: %v, %s", err, out)
	}
	return ""
}
