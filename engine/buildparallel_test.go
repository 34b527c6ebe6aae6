package engine

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nook/build"
)

// TestBuildsAtOnce: two builds of one Dockerfile at the same time, while the
// cache is pruned again and again, both make the image, and it is whole.
func TestBuildsAtOnce(t *testing.T) {
	t.Parallel()
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{
		"Dockerfile": "FROM busybox AS a\nCOPY f /f\nRUN echo a >/a\nFROM busybox\nCOPY --from=a /a /f /\nRUN cat /a /f >/all\n", "f": "f\n",
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var pruning sync.WaitGroup
	pruning.Go(func() {
		for ctx.Err() == nil {
			if _, err := e.PruneBuilds(t.Context(), BuildPruneOptions{All: true}); err != nil {
				t.Errorf("prune beside builds: %v", err)
				return
			}
		}
	})
	names := []string{"one", "two", "three"}
	for range 3 {
		var all sync.WaitGroup
		for _, name := range names {
			all.Go(func() {
				_, err := buildDockerfile(t, e, dir, func(o *build.Options) { o.Names = []string{name} })
				if err != nil {
					t.Errorf("build of %s beside others: %v", name, err)
				}
			})
		}
		all.Wait()
	}
	stop()
	pruning.Wait()
	if t.Failed() {
		return
	}
	for _, name := range names {
		got, err := run(t, e, RunOptions{Image: name, Remove: true, Command: []string{"cat", "/all"}})
		if err != nil || got.out != "a\nf\n" {
			t.Errorf("image %s printed %q, %v", name, got.out, err)
		}
	}
	nothingLeft(t, e)
	if left, _ := filepath.Glob(filepath.Join(e.root, "build", "running", "[^.]*")); len(left) > 0 {
		t.Errorf("%d builds still run", len(left))
	}
}

// A build that was killed a moment ago holds nothing, and what it left goes.
func TestPruneRightAfterAKilledBuild(t *testing.T) {
	e := loaded(t, "single", nil)
	dir := contextOf(t, map[string]string{"Dockerfile": "FROM busybox\nRUN echo x >/x"})
	running := filepath.Join(e.root, "build", "running", "killed")
	cut := filepath.Join(e.root, "build", "cache", ".key.json.tmp-1")
	for _, name := range []string{running, cut} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustBuild(t, e, dir)
	if _, err := e.PruneBuilds(t.Context(), BuildPruneOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{running, cut} {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b := mustBuild(t, e, dir); len(b.cached) > 0 {
		t.Errorf("%q were found", b.cached)
	}
}
