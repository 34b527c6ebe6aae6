package engine

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/build"
	"nook/internal/testenv"
)

// Whatever of a context reaches the image is in the key of the step.
func TestBuildSeesEachChangeOfAContext(t *testing.T) {
	e := loaded(t, "single", nil)
	for name, tc := range map[string]struct {
		before, after string // instructions; after "": as before
		change        func(t *testing.T, dir string)
		same          bool
	}{
		"nothing":            {before: "COPY d /x/", same: true},
		"a time":             {before: "COPY d /x/", same: true, change: func(t *testing.T, dir string) { touch(t, dir, "d/f") }},
		"--parents":          {before: "COPY d /x/", after: "COPY --parents d /x/"},
		"a dot at the top":   {before: "COPY . /x/", change: func(t *testing.T, dir string) { move(t, dir, ".0", "0") }},
		"a dot in a bind":    {before: "RUN --mount=target=/m cp -r /m /x", change: func(t *testing.T, dir string) { move(t, dir, ".0", "0") }},
		"a mode above":       {before: "COPY --parents d/e/g /x/", change: func(t *testing.T, dir string) { chmod(t, dir, "d") }},
		"a mode of a source": {before: "COPY --parents d/e /x/", change: func(t *testing.T, dir string) { chmod(t, dir, "d/e") }},
		"a mode in it":       {before: "COPY d /x/", change: func(t *testing.T, dir string) { chmod(t, dir, "d/e") }},
		"an attribute":       {before: "COPY d /x/", change: func(t *testing.T, dir string) { attribute(t, dir, "d/f") }},
		"one of a directory": {before: "COPY d /x/", change: func(t *testing.T, dir string) { attribute(t, dir, "d/e") }},
		"a renamed file":     {before: "COPY d /x/", change: func(t *testing.T, dir string) { move(t, dir, "d/f", "d/ef") }},
		"a target":           {before: "RUN --mount=type=tmpfs,target=/a,size=1m true", after: "RUN --mount=type=tmpfs,target=/b,size=1m true"},
		"a cache's id": {
			before: `RUN --mount=type=cache,target=/a,"id=b false c" true`, after: `RUN --mount=type=cache,"target=/a false b",id=c true`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := contextOf(t, map[string]string{"d/f": "f", "d/e/g": "g", ".0": "0"})
			df := func(instruction string) func(*build.Options) {
				file := filepath.Join(t.TempDir(), "Dockerfile")
				if err := os.WriteFile(file, []byte("FROM busybox\n"+instruction+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return func(o *build.Options) { o.Source.File = file }
			}
			mustBuild(t, e, dir, df(tc.before))
			if tc.change != nil {
				tc.change(t, dir)
			}
			if tc.after == "" {
				tc.after = tc.before
			}
			if b := mustBuild(t, e, dir, df(tc.after)); (len(b.cached) == 1) != tc.same {
				t.Errorf("from the cache came %q", b.cached)
			}
		})
	}
}

func touch(t *testing.T, dir, name string) {
	t.Helper()
	must(t, unix.Utimes(filepath.Join(dir, name), []unix.Timeval{{Sec: 9}, {Sec: 9}}))
}

func move(t *testing.T, dir, from, to string) {
	t.Helper()
	must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
}

func chmod(t *testing.T, dir, name string) {
	t.Helper()
	must(t, os.Chmod(filepath.Join(dir, name), 0o711))
}

func attribute(t *testing.T, dir, name string) {
	t.Helper()
	testenv.Need(t, "user xattrs", func() error { return unix.Setxattr(filepath.Join(dir, name), "user.mine", []byte("1"), 0) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What changed between the look at a context and the copy isn't remembered:
// contents, links and modes.
func TestBuildKnowsWhatChangedWhileItWasCopied(t *testing.T) {
	e := loaded(t, "single", nil)
	for name, change := range map[string]func(dir string) error{
		"":            func(string) error { return nil },
		"a new name":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "d/new"), nil, 0o600) },
		"a file":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "d/f"), []byte("other"), 0o600) },
		"a mode":      func(dir string) error { return os.Chmod(filepath.Join(dir, "d"), 0o711) },
		"a link":      func(dir string) error { return relink(filepath.Join(dir, "d/l"), "other") },
		"one that is": func(dir string) error { return os.Remove(filepath.Join(dir, "d/f")) },
	} {
		dir := contextOf(t, map[string]string{"d/f": "f"})
		must(t, os.Symlink("f", filepath.Join(dir, "d/l")))
		w, err := e.newWorker(t.Context())
		must(t, err)
		tree := build.Tree{Dir: dir}
		sel, err := w.Select(t.Context(), tree, build.SelectSpec{Sources: []string{"d"}})
		must(t, err)
		must(t, change(dir))
		found := sel.Found.(*selected)
		if got, want := found.changed(dir, nil), name != "" && name != "a new name"; got != want {
			t.Errorf("%s: changed is %t", name, got)
		}
		// A linked file is what it was when it was read. One that is neither
		// linked nor copied became something else.
		linked := name == "a file" || name == "one that is"
		if got, want := found.changed(dir, &relinked{Linked: 1}), name != "" && name != "a new name" && !linked; got != want {
			t.Errorf("%s, with the file linked: changed is %t", name, got)
		}
		for _, took := range []relinked{{Copied: names{"d/l", "d/f"}}, {}} {
			if linked && !found.changed(dir, &took) {
				t.Errorf("%s: a change is missed with %v", name, took)
			}
		}
		w.close()
	}
}

func relink(name, target string) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.Symlink(target, name)
}

// Names may be any bytes; JSON, in which a stage gets them, has UTF-8.
func TestBuildCopiesAnyName(t *testing.T) {
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{
		"Dockerfile": "FROM busybox\nCOPY c /c\nCOPY [\"c/*\", \"/w/\"]\nCOPY --parents c/* /p/\nRUN ls /c /w /p/c >/list; cat /c/* /w/* /p/c/* >/all",
		"c/a\xff":    "1", "c/a\ufffd": "2", "c/\xfe": "3",
	})
	mustBuild(t, e, dir)
	got, err := run(t, e, RunOptions{Image: "made", Remove: true, Command: []string{"sh", "-c", "cat /all; ls /c | wc -l"}})
	if err != nil || strings.TrimSpace(got.out) != "213"+"213"+"2133" {
		t.Errorf("%q, %v", got.out, err)
	}
}

// Whoever removes a base under a build doesn't break it.
func TestBuildGoesOnWithoutItsBase(t *testing.T) {
	for name, remove := range map[string]func(e *Engine) error{
		"prune": func(e *Engine) error { _, err := e.PruneImages(t.Context(), ImagePruneOptions{All: true}); return err },
		"rmi":   func(e *Engine) error { _, err := e.RemoveImage(t.Context(), "busybox", true); return err },
	} {
		t.Run(name, func(t *testing.T) {
			e := loaded(t, "single", nil)
			dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo ready\nRUN echo two >/two\n"})
			var once sync.Once
			mustBuild(t, e, dir, func(o *build.Options) {
				tell := o.Event
				o.Event = func(ev build.Event) {
					tell(ev)
					if ev.Kind == build.Wrote && strings.Contains(ev.Text, "ready") {
						once.Do(func() { must(t, remove(e)) })
					}
				}
			})
			if _, err := e.images.Resolve("busybox"); err == nil {
				t.Fatal("the base was not removed")
			}
			got, err := run(t, e, RunOptions{Image: "made", Remove: true, Command: []string{"cat", "/two"}})
			if err != nil || got.out != "two\n" {
				t.Errorf("%q, %v", got.out, err)
			}
			found, err := e.Check(t.Context(), CheckOptions{})
			if err != nil || found.Damaged() {
				t.Errorf("the store: %+v, %v", found, err)
			}
		})
	}
}

// A RUN may make of /etc what it likes: what nook tidies up isn't the host's.
func TestBuildFollowsNoLinkOfACommand(t *testing.T) {
	for _, ids := range []string{"mapped", "single"} {
		t.Run(ids, func(t *testing.T) {
			e := loaded(t, ids, nil)
			victim := t.TempDir()
			for _, name := range etcNames() {
				must(t, os.WriteFile(filepath.Join(victim, name), nil, 0o600))
			}
			linked := contextOf(t, map[string]string{"Dockerfile": "FROM scratch\nADD root.tar /\nCOPY --from=busybox /bin /bin\n" +
				"RUN rm /etc && ln -s " + victim + " /etc\n", "root.tar": string(linkedEtc(t))})
			mustBuild(t, e, linked)
			if left, _ := os.ReadDir(victim); len(left) != len(etcNames()) {
				t.Errorf("of the host's files %d are left", len(left))
			}
		})
	}
}

// linkedEtc is a root file system whose /etc is a link to a directory.
func linkedEtc(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "real", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc", Typeflag: tar.TypeSymlink, Linkname: "real"},
	} {
		must(t, w.WriteHeader(&h))
	}
	must(t, w.Close())
	return b.Bytes()
}

// Steps that use the same caches wait for each other, never for themselves.
func TestBuildLocksItsCachesInOneOrder(t *testing.T) {
	e := loaded(t, "single", nil)
	mount := func(id, target, sharing string) string {
		return "--mount=type=cache,id=" + id + ",target=" + target + ",sharing=" + sharing + " "
	}
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox AS a\n" +
		"RUN " + mount("x", "/x", "locked") + mount("y", "/y", "locked") + "echo a >>/x/f; echo a >>/y/f\n" +
		"FROM busybox AS b\n" +
		"RUN " + mount("y", "/y", "locked") + mount("x", "/x", "locked") + "echo b >>/x/f; echo b >>/y/f\n" +
		"FROM busybox AS c\n" +
		"RUN " + mount("x", "/x", "shared") + mount("x", "/also", "locked") + mount("x", "/own", "private") + "echo c >>/x/f; cmp /x/f /also/f && test ! -e /own/f\n" +
		"FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\nCOPY --from=c /etc/passwd /c\n" +
		"RUN " + mount("x", "/x", "shared") + "sort /x/f >/found\n"})
	mustBuild(t, e, dir)
	got, err := run(t, e, RunOptions{Image: "made", Remove: true, Command: []string{"cat", "/found"}})
	if err != nil || got.out != "a\nb\nc\n" {
		t.Errorf("%q, %v", got.out, err)
	}
}

// A mode of 0 is one, too.
func TestBuildMountsHaveTheirMode(t *testing.T) {
	e := loaded(t, "mapped", nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\n" +
		"RUN --mount=type=cache,target=/c,mode=0 --mount=type=cache,target=/d --mount=type=secret,id=s,target=/s,mode=0" +
		" --mount=type=secret,id=s,target=/t stat -c %a /c /d /s /t\n"})
	t.Setenv("A_SECRET", "hush")
	b := mustBuild(t, e, dir, func(o *build.Options) { o.Secrets = map[string]build.Secret{"s": {Env: "A_SECRET"}} })
	if got := strings.Fields(b.out); !slices.Equal(got, []string{"0", "755", "0", "400"}) {
		t.Errorf("%q", got)
	}
}

// Names of one file are links to it, whichever of them is copied first, and
// never to what another source put in its place.
func TestBuildCopiesHardLinks(t *testing.T) {
	e := loaded(t, "single", nil)
	files := map[string]string{"d1/x": "one", "d2/x": "two", "d3/keep": "", "Dockerfile": "FROM busybox\nCOPY d1/ d2/ d3/ /over/\nCOPY a /a/\n"}
	for n := range 300 {
		files[fmt.Sprintf("a/one/%d", n)] = fmt.Sprint(n)
	}
	dir := contextOf(t, files)
	must(t, os.Link(filepath.Join(dir, "d1/x"), filepath.Join(dir, "d3/y")))
	must(t, os.Mkdir(filepath.Join(dir, "a/two"), 0o755))
	for n := range 300 {
		must(t, os.Link(filepath.Join(dir, fmt.Sprintf("a/one/%d", n)), filepath.Join(dir, fmt.Sprintf("a/two/%d", n))))
	}
	var first string
	for range 3 {
		b := mustBuild(t, e, dir, func(o *build.Options) { o.NoCache, o.Epoch = true, time.Unix(1, 0) })
		if first == "" {
			first = b.Image.ID
		}
		if b.Image.ID != first {
			t.Errorf("the same build is %s and %s", first, b.Image.ID)
		}
	}
	got, err := run(t, e, RunOptions{Image: "made", Remove: true, Command: []string{"sh", "-c", "cat /over/x /over/y; find /a -type f -links 2 | wc -l"}})
	if err != nil || got.out != "twoone600\n" {
		t.Errorf("%q, %v", got.out, err)
	}
}

// COPY --link says nothing of the root directory.
func TestBuildLinkLeavesTheRoot(t *testing.T) {
	e := loaded(t, "mapped", nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN chmod 0711 /\nCOPY --link f /f\nRUN stat -c %a /\n", "f": "f"})
	b := mustBuild(t, e, dir)
	got, err := run(t, e, RunOptions{Image: "made", Remove: true, Command: []string{"stat", "-c", "%a", "/"}})
	if err != nil || b.out != "711\n" || got.out != "711\n" {
		t.Errorf("in the build %q, then %q, %v", b.out, got.out, err)
	}
	found, err := e.Check(t.Context(), CheckOptions{})
	if err != nil || found.Damaged() {
		t.Errorf("the store: %+v, %v", found, err)
	}
}

// With an epoch an image has no later time, and has one, though it is no more
// than a label.
func TestBuildEpochOfAnImageOfLabels(t *testing.T) {
	e := loaded(t, "single", nil)
	epoch := time.Unix(1000, 0)
	for _, base := range []string{"busybox", "scratch"} {
		dir := contextOf(t, map[string]string{"Dockerfile": "FROM " + base + "\nLABEL a=b\n"})
		b := mustBuild(t, e, dir, func(o *build.Options) { o.Epoch = epoch })
		config, err := e.images.Config(b.Image)
		must(t, err)
		last := config.History[len(config.History)-1]
		if config.Created == nil || !config.Created.Equal(epoch) || last.Created == nil || !last.Created.Equal(epoch) {
			t.Errorf("%s: created %v, the label %v, want %v", base, config.Created, last.Created, epoch)
		}
	}
}

// A cache mount is as old as its last use.
func TestPruneLeavesCachesThatWereUsed(t *testing.T) {
	e := loaded(t, "single", nil)
	long := time.Now().Add(-72 * time.Hour)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=cache,target=/c,id=used touch /c/x\n" +
		"RUN --mount=type=cache,target=/c,id=old touch /c/x\n"})
	mustBuild(t, e, dir)
	locks, err := filepath.Glob(filepath.Join(e.root, "build", "mounts", "*.lock"))
	must(t, err)
	for _, lock := range locks {
		must(t, os.Chtimes(lock, long, long))
	}
	again := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=cache,target=/c,id=used test -e /c/x\n"})
	mustBuild(t, e, again)
	_, err = e.PruneBuilds(t.Context(), BuildPruneOptions{All: true, Until: time.Now().Add(-24 * time.Hour)})
	must(t, err)
	if left, _ := filepath.Glob(filepath.Join(e.root, "build", "mounts", "*", "fs")); len(left) != 1 {
		t.Errorf("%d of %d caches are left", len(left), len(locks))
	}
}

// Keys that lead to one layer count its bytes once.
func TestPruneKeepsAsMuchAsItSays(t *testing.T) {
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox AS a\nRUN dd if=/dev/zero of=/z bs=1k count=1000 2>/dev/null\n" +
		"FROM busybox\nCOPY --from=a /z /z\nRUN rm /z\n"})
	mustBuild(t, e, dir)
	_, err := e.RemoveImage(t.Context(), "made", true)
	must(t, err)
	_, err = e.PruneBuilds(t.Context(), BuildPruneOptions{All: true, Keep: 1_100_000})
	must(t, err)
	list, err := e.BuildCache(t.Context())
	must(t, err)
	var left int64
	seen := map[string]bool{}
	for _, s := range list {
		if top := s.layers[len(s.layers)-1]; !seen[top] {
			seen[top] = true
			left += s.Size
		}
	}
	if left > 1_100_000 || left < 1_000_000 {
		t.Errorf("%d bytes are left", left)
	}
}
