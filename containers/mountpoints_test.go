package containers

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestRemoveUnwrittenTakesMountPointsAway(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(upper string) error
		want bool
	}{
		"mount points":  {func(string) error { return nil }, true},
		"a file's":      {func(upper string) error { return os.WriteFile(filepath.Join(upper, "file"), nil, 0o600) }, true},
		"more":          {func(upper string) error { return os.WriteFile(filepath.Join(upper, "more"), nil, 0o600) }, false},
		"more in one":   {func(upper string) error { return os.WriteFile(filepath.Join(upper, "a/b/more"), nil, 0o600) }, false},
		"a way outside": {func(upper string) error { return os.Symlink(filepath.Dir(outside), filepath.Join(upper, "link")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			ct, held := mountPoints(t)
			defer held.Release()
			upper := filepath.Join(ct.Path, "upper")
			for _, dir := range []string{"a/b/c", "run/secrets", "work"} {
				if err := os.MkdirAll(filepath.Join(upper, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.make(upper); err != nil {
				t.Fatal(err)
			}
			if got := ct.RemoveUnwritten("points"); got != c.want {
				t.Errorf("removed: %v, want %v", got, c.want)
			}
			if _, err := os.Stat(ct.Path); errors.Is(err, fs.ErrNotExist) != c.want {
				t.Errorf("the directory: %v", err)
			}
			if _, err := os.Stat(outside); err != nil {
				t.Errorf("what a symlink leads to is gone: %v", err)
			}
		})
	}
}

// mountPoints makes a container with mounts on /a/b/c, /file and, through a
// link that a container may have put there, /link/outside.
func mountPoints(t *testing.T) (Container, *Lock) {
	t.Helper()
	cfg := &Config{ID: NewID(), Name: "points", Remove: true, WorkingDir: "/work", Secrets: []Secret{{ID: "key"}}}
	for _, target := range []string{"/link/outside", "/a/b", "/a/b/c", "/file"} {
		cfg.Mounts = append(cfg.Mounts, Mount{Type: "bind", Target: target})
	}
	ct, held, err := Open(t.TempDir()).Create(cfg, Attr{Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	return ct, held
}
