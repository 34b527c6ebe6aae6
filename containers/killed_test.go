package containers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
)

// TestNamesThatKilledCommandsLeft: a name is free when no container has it,
// whatever link is there, and its link is gone after a sweep.
func TestNamesThatKilledCommandsLeft(t *testing.T) {
	for name, test := range map[string]struct {
		left func(t *testing.T, d Dir) (c Container, held *Lock)
		// taken: the name is somebody's; stays: so is the link after a sweep.
		taken, stays bool
	}{
		"by a creation, before the record": {left: func(t *testing.T, d Dir) (Container, *Lock) {
			return unrecorded(t, d)
		}},
		"by a creation that goes on": {taken: true, stays: true, left: func(t *testing.T, d Dir) (Container, *Lock) {
			c, _ := unrecorded(t, d)
			held, err := c.lockDir(unix.LOCK_EX | unix.LOCK_NB)
			if err != nil {
				t.Fatal(err)
			}
			return c, held
		}},
		"by a removal, after the directory": {left: func(t *testing.T, d Dir) (Container, *Lock) {
			c, held := unrecorded(t, d)
			if err := os.RemoveAll(c.Path); err != nil {
				t.Fatal(err)
			}
			return c, held
		}},
		"by a rename, before the record": {stays: true, left: func(t *testing.T, d Dir) (Container, *Lock) {
			c, _ := create(t, d, "old")
			if err := d.link("web", c.ID); err != nil {
				t.Fatal(err)
			}
			return c, nil
		}},
		"by a record that is cut short": {left: func(t *testing.T, d Dir) (Container, *Lock) {
			c, _ := create(t, d, "web")
			if err := os.Truncate(filepath.Join(c.Path, "config.json"), 5); err != nil {
				t.Fatal(err)
			}
			return c, nil
		}},
		"by nobody: it is in use": {taken: true, stays: true, left: func(t *testing.T, d Dir) (Container, *Lock) {
			c, _ := create(t, d, "web")
			return c, nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t)
			_, held := test.left(t, d)
			err := d.take("web", NewID())
			if errors.Is(err, ErrNameTaken) != test.taken || !test.taken && err != nil {
				t.Errorf("take: %v; want it to be taken: %v", err, test.taken)
			}
			held.Release()
			_ = os.Remove(filepath.Join(d.names(), "web"))
			c, again := test.left(t, newDirAt(t, d))
			defer again.Release()
			if err := d.Sweep(c); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(filepath.Join(d.names(), "web")); (err == nil) != test.stays {
				t.Errorf("after a sweep: %v, want the link to stay: %v", err, test.stays)
			}
		})
	}
}

// newDirAt empties a directory.
func newDirAt(t *testing.T, d Dir) Dir {
	t.Helper()
	if err := os.RemoveAll(d.path); err != nil {
		t.Fatal(err)
	}
	return d
}

// unrecorded is a container as Create has it before its record is written.
func unrecorded(t *testing.T, d Dir) (Container, *Lock) {
	t.Helper()
	c := d.At(NewID())
	for _, dir := range []string{d.names(), filepath.Join(c.Path, "upper"), filepath.Join(c.Path, "work")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.link("web", c.ID); err != nil {
		t.Fatal(err)
	}
	return c, nil
}

// TestRenameGoesOnAfterAKill: the new name leads to the container already.
func TestRenameGoesOnAfterAKill(t *testing.T) {
	d := newDir(t)
	c, _ := create(t, d, "old")
	if err := d.link("new", c.ID); err != nil {
		t.Fatal(err)
	}
	if err := c.Edit(func(cfg *Config) error { cfg.Name = "new"; return nil }); err != nil {
		t.Fatal(err)
	}
	// Nor does the old one stay with it when the kill comes later.
	if err := d.link("old", c.ID); err != nil {
		t.Fatal(err)
	}
	_, lock, err := d.Create(&Config{ID: NewID(), Name: "old"}, Attr{Mode: 0o755})
	lock.Release()
	if err != nil {
		t.Error(err)
	}
}

// TestSocketsThatKilledMonitorsLeft: one that is no container's of ours stays.
func TestSocketsThatKilledMonitorsLeft(t *testing.T) {
	for _, own := range []bool{true, false} {
		d := newDir(t)
		c, lock, err := d.Create(&Config{ID: NewID(), Name: "web", Remove: true}, Attr{Mode: 0o755})
		lock.Release()
		if err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(t.TempDir(), SocketName(c.ID))
		if !own {
			socket = filepath.Join(filepath.Dir(socket), "another")
		}
		if err := os.WriteFile(socket, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		gone := Process{Pid: 1, StartTime: 1, Boot: "another"}
		if err := c.WriteState(State{Status: Running, Monitor: gone, Socket: socket}, atomicfile.Volatile); err != nil {
			t.Fatal(err)
		}
		if err := d.Sweep(c); err != nil || c.exists() {
			t.Errorf("the container is there: %v (%v)", c.exists(), err)
		}
		if _, err := os.Lstat(socket); (err == nil) == own {
			t.Errorf("%s after the sweep: %v", filepath.Base(socket), err)
		}
	}
}

// TestTakeWaitsForARemoval: a name whose container has no record any more is
// free in a moment.
func TestTakeWaitsForARemoval(t *testing.T) {
	d := newDir(t)
	c, cfg := create(t, d, "web")
	held, err := c.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	if err := os.Remove(filepath.Join(c.Path, "config.json")); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error, 1)
	go func() { removed <- c.Remove(cfg.Name) }()
	if err := d.take("web", NewID()); err != nil {
		t.Error(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
}
