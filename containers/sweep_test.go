package containers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
)

func TestSweepTakesWhatHasNoRecordAndNobodyHolds(t *testing.T) {
	root := t.TempDir()
	dir := Open(root)
	make64 := func(c string) Container {
		ct := dir.At(strings.Repeat(c, idLength))
		if err := os.MkdirAll(filepath.Join(ct.Path, "work"), 0o700); err != nil {
			t.Fatal(err)
		}
		return ct
	}
	orphan, held, whole := make64("a"), make64("b"), make64("c")
	if err := os.WriteFile(filepath.Join(whole.Path, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := held.lockDir(unix.LOCK_EX | unix.LOCK_NB)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "names"), 0o700); err != nil {
		t.Fatal(err)
	}
	check := func(want map[string]bool) {
		t.Helper()
		if err := dir.Sweep(); err != nil {
			t.Fatal(err)
		}
		for path, stays := range want {
			if _, err := os.Lstat(path); (err == nil) != stays {
				t.Errorf("%s: %v, want it to stay: %v", filepath.Base(path), err, stays)
			}
		}
	}
	names := filepath.Join(root, "names")
	check(map[string]bool{orphan.Path: false, held.Path: true, whole.Path: true, names: true})
	unlock.Release()
	check(map[string]bool{held.Path: false, whole.Path: true, names: true})
}

// TestSweepTakesAbandonedOnesThatItIsGiven: containers of run --rm whose
// command and monitor were killed.
func TestSweepTakesAbandonedOnesThatItIsGiven(t *testing.T) {
	gone := Process{Pid: 1, StartTime: 1, Boot: "another"}
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		remove, held bool
		state        *State
		abandoned    bool
	}{
		"never started":        {remove: true, abandoned: true},
		"being started":        {remove: true, held: true},
		"waits for its start":  {remove: true, state: &State{Status: Created}},
		"its monitor is gone":  {remove: true, state: &State{Status: Running, Monitor: gone}, abandoned: true},
		"ended":                {remove: true, state: &State{Status: Exited}, abandoned: true},
		"runs":                 {remove: true, state: &State{Status: Running, Monitor: self}},
		"is to stay":           {state: &State{Status: Exited}},
		"is to stay, as it is": {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := Open(t.TempDir())
			ct, lock, err := dir.Create(&Config{
				ID: NewID(), Name: "web", Remove: test.remove, Mounts: []Mount{{Type: "volume", Name: "data"}},
			}, Attr{Mode: 0o755})
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Release()
			if !test.held {
				lock.Release()
			}
			if test.state != nil {
				if err := ct.WriteState(*test.state, atomicfile.Volatile); err != nil {
					t.Fatal(err)
				}
			}
			state, err := ct.State()
			if err != nil {
				t.Fatal(err)
			}
			if got := ct.Abandoned(test.remove, state); got != test.abandoned {
				t.Errorf("abandoned: %v, want %v", got, test.abandoned)
			}
			// Nobody is told to remove a container first that goes by itself.
			if users, err := dir.VolumeUsers(); err != nil || (len(users["data"]) == 0) != test.abandoned {
				t.Errorf("its volume's users: %v, %v", users, err)
			}
			if err := dir.Sweep(); err != nil || !ct.exists() {
				t.Errorf("a sweep that wasn't given it took it, or: %v", err)
			}
			if err := dir.Sweep(ct); err != nil || ct.exists() == test.abandoned {
				t.Errorf("after the sweep it is there: %v (%v); want %v", ct.exists(), err, !test.abandoned)
			}
			if _, err := dir.Find("web"); (err == nil) == test.abandoned {
				t.Errorf("its name afterwards: %v", err)
			}
		})
	}
}
