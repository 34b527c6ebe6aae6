package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

func newDir(t *testing.T) Dir {
	t.Helper()
	return Open(filepath.Join(t.TempDir(), "containers"))
}

func create(t *testing.T, d Dir, name string) (Container, *Config) {
	t.Helper()
	cfg := &Config{ID: NewID(), Name: name, Image: "x"}
	c, lock, err := d.Create(cfg, Attr{Mode: 0o755})
	lock.Release()
	if err != nil {
		t.Fatal(err)
	}
	return c, cfg
}

func ids(t *testing.T, d Dir) []string {
	t.Helper()
	list, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range list {
		out = append(out, c.ID)
	}
	slices.Sort(out)
	return out
}

func TestCreateWritesWhatConfigReads(t *testing.T) {
	for _, remove := range []bool{false, true} {
		d := newDir(t)
		want := &Config{
			ID: NewID(), Name: "web", Created: time.Unix(1, 0).UTC(), Image: "busybox", IDs: "mapped",
			Layers: []string{"b", "a"}, Entrypoint: []string{"sh"}, Env: []string{"A=\"b\nc"},
			Labels: map[string]string{"k": "v"}, Remove: remove,
			Mounts: []Mount{{Type: "bind", Source: "/s", Target: "/t", ReadOnly: true}},
		}
		c, lock, err := d.Create(want, Attr{Mode: 0o3751})
		lock.Release()
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.At(want.ID).Config()
		if err != nil {
			t.Fatal(err)
		}
		g, _ := json.Marshal(got)
		w, _ := json.Marshal(want)
		if string(g) != string(w) {
			t.Errorf("got %s\nwant %s", g, w)
		}
		if got.Version != ConfigVersion {
			t.Errorf("version %d, want %d", got.Version, ConfigVersion)
		}
		for name, mode := range map[string]os.FileMode{
			"":      os.ModeDir | 0o700,
			"upper": os.ModeDir | 0o751 | os.ModeSetgid | os.ModeSticky,
			"work":  os.ModeDir | 0o700, "config.json": 0o600,
		} {
			if st, err := os.Stat(filepath.Join(c.Path, name)); err != nil || st.Mode() != mode {
				t.Errorf("%q: mode %v, %v; want %v", name, st.Mode(), err, mode)
			}
		}
		if s, err := c.State(); err != nil || s.Status != Created {
			t.Errorf("state: %+v, %v; want created", s, err)
		}
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	d := newDir(t)
	kept, _ := create(t, d, "kept")
	for name, prepare := range map[string]func(c Container) error{
		"as it was made": func(Container) error { return nil },
		"wrote nothing": func(c Container) error {
			return os.MkdirAll(filepath.Join(c.Path, "work/work/incompat/volatile"), 0o700)
		},
		"wrote":                func(c Container) error { return os.MkdirAll(filepath.Join(c.Path, "upper/a/b"), 0o700) },
		"has a log, a state":   func(c Container) error { return errors.Join(put(c, "log"), put(c, "log.1"), put(c, "state.json")) },
		"half removed already": func(c Container) error { return os.Remove(filepath.Join(c.Path, "config.json")) },
	} {
		c, cfg := create(t, d, "gone")
		if err := prepare(c); err != nil {
			t.Fatal(err)
		}
		if err := c.Remove(cfg.Name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		entries, err := os.ReadDir(d.path)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 2 { // kept, and names
			t.Errorf("%s: %v is left", name, entries)
		}
		names, _ := os.ReadDir(d.names())
		if len(names) != 1 || names[0].Name() != "kept" {
			t.Errorf("%s: names %v, want kept", name, names)
		}
	}
	if got := ids(t, d); !slices.Equal(got, []string{kept.ID}) {
		t.Errorf("List() = %v, want the kept one", got)
	}
}

func put(c Container, name string) error {
	return os.WriteFile(filepath.Join(c.Path, name), []byte("x"), 0o600)
}

// TestNameIsTakenOnce: of many that want it at the same time.
func TestNameIsTakenOnce(t *testing.T) {
	d := newDir(t)
	const many = 100
	var wg sync.WaitGroup
	errs := make([]error, many)
	start := make(chan struct{})
	for i := range many {
		wg.Go(func() {
			<-start
			_, _, errs[i] = d.Create(&Config{ID: NewID(), Name: "web"}, Attr{Mode: 0o755})
		})
	}
	close(start)
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrNameTaken) || hint.Of(err) == "":
			t.Errorf("got %v, want ErrNameTaken with a hint", err)
		}
	}
	if won != 1 {
		t.Errorf("%d have the name, want 1", won)
	}
	if got := ids(t, d); len(got) != 1 {
		t.Errorf("%d containers are there, want 1: the losers leave nothing", len(got))
	}
	if entries, _ := os.ReadDir(d.path); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestStaleNameIsTakenOver: a kill between the removal of a container and
// that of its name.
func TestStaleNameIsTakenOver(t *testing.T) {
	d := newDir(t)
	dead, _ := create(t, d, "web")
	if err := os.RemoveAll(dead.Path); err != nil {
		t.Fatal(err)
	}
	c, _ := create(t, d, "web")
	if holder, err := os.Readlink(filepath.Join(d.names(), "web")); err != nil || filepath.Base(holder) != c.ID {
		t.Errorf("the name is of %s, %v; want %s", holder, err, c.ID)
	}
}

// TestRemoveKeepsAnothersName: a container whose name was taken over.
func TestRemoveKeepsAnothersName(t *testing.T) {
	d := newDir(t)
	c, _ := create(t, d, "web")
	other, _ := create(t, d, "other")
	if err := other.Remove("web"); err != nil {
		t.Fatal(err)
	}
	if holder, err := os.Readlink(filepath.Join(d.names(), "web")); err != nil || filepath.Base(holder) != c.ID {
		t.Errorf("the name is of %s, %v; want %s", holder, err, c.ID)
	}
}

func TestListKnowsContainersAlone(t *testing.T) {
	d := newDir(t)
	if got := ids(t, d); got != nil {
		t.Errorf("before there is a directory: %v", got)
	}
	a, _ := create(t, d, "a")
	b, _ := create(t, d, "b")
	want := []string{a.ID, b.ID}
	slices.Sort(want)
	half := NewID() // a directory without a record
	for _, dir := range []string{".skeleton/etc", half, strings.Repeat("a", 63), "names/" + NewID()} {
		if err := os.MkdirAll(filepath.Join(d.path, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if dir == half {
			continue
		}
		if err := os.WriteFile(filepath.Join(d.path, dir, "config.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(d.path, NewID()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ids(t, d); !slices.Equal(got, want) {
		t.Errorf("List() = %v, want %v", got, want)
	}
}

func TestRecordsOfANewerNookAreRefused(t *testing.T) {
	d := newDir(t)
	c, _ := create(t, d, "web")
	for file, read := range map[string]func() error{
		"config.json": func() error { _, err := c.Config(); return err },
		"state.json":  func() error { _, err := c.State(); return err },
	} {
		if err := os.WriteFile(filepath.Join(c.Path, file), []byte(`{"version":2,"status":"from the future"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := read(); !errors.Is(err, ErrVersion) || hint.Of(err) == "" {
			t.Errorf("%s: %v, want ErrVersion with a hint", file, err)
		}
		for _, broken := range []string{"", "{", "[]", `{"version":"1"}`} {
			if err := os.WriteFile(filepath.Join(c.Path, file), []byte(broken), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := read(); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), c.ID[:12]) {
				t.Errorf("%s of %q: %v, want an error that names the container and the file", file, broken, err)
			}
		}
	}
}

// TestRunningIsToldOnlyOfTheLiving: a state that nobody keeps true any more.
func TestRunningIsToldOnlyOfTheLiving(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	reboot, reused, gone, none := self, self, self, Process{}
	reboot.Boot = "00000000-0000-0000-0000-000000000000"
	reused.StartTime++
	gone.Pid = 1 << 22 // PID_MAX_LIMIT, which no process has
	for name, tc := range map[string]struct {
		monitor Process
		alive   bool
	}{
		"alive": {self, true}, "before a reboot": {reboot, false}, "the pid is another's": {reused, false},
		"dead": {gone, false}, "unknown": {none, false},
		"a group's": {Process{-self.Pid, self.StartTime, self.Boot}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := create(t, newDir(t), "web")
			if err := c.WriteState(State{Status: Running, Pid: 5, Monitor: tc.monitor}, atomicfile.Volatile); err != nil {
				t.Fatal(err)
			}
			want := State{Version: StateVersion, Status: Exited, Monitor: tc.monitor, ExitCode: 137, Lost: true}
			if tc.alive {
				want.Status, want.Pid, want.ExitCode, want.Lost = Running, 5, 0, false
			}
			if got, err := c.State(); err != nil || got != want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

// TestStartTimeReadsPastTheCommand: a program chooses its own name.
func TestStartTimeReadsPastTheCommand(t *testing.T) {
	before, err := startTime("self")
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.WriteFile("/proc/self/comm", old, 0o600) }()
	for _, name := range []string{"a b) c", ") 1 2 3 4 5 6", "(((", ")))\n"} {
		// The main thread's: /proc/PID/stat shows that one's name.
		if err := os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid()), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := startTime("self"); err != nil || got != before {
			t.Errorf("as %q: %d, %v; want %d", name, got, err, before)
		}
	}
	if _, err := startTime("no-such-process"); err == nil {
		t.Error("of no process: no error")
	}
}

// TestZombieIsNotAlive: its parent has not waited for it.
func TestZombieIsNotAlive(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	start, err := startTime(strconv.Itoa(cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	p := Process{cmd.Process.Pid, start, bootID()}
	if !p.Alive() {
		t.Error("while it runs: not alive")
	}
	_ = stdin.Close()
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, p.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if p.Alive() {
		t.Error("as a zombie: alive")
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"web", "a1", "0x", "A_b.c-d", strings.Repeat("a", 200)} {
		if err := ValidName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "a", "-web", ".web", "_web", "we b", "we/b", "..", "../web", "web\n", "wéb", "a:b"} {
		if err := ValidName(name); !errors.Is(err, ErrName) || hint.Of(err) == "" {
			t.Errorf("%q: %v, want ErrName with a hint", name, err)
		}
	}
}

func TestRandomNamesAreValid(t *testing.T) {
	for _, list := range [][]string{adjectives(), nouns()} {
		for _, word := range list {
			if err := ValidName(word + "_x"); err != nil {
				t.Error(err)
			}
		}
		sorted := slices.Clone(list)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(list) {
			t.Error("a word twice")
		}
	}
	if err := ValidName(RandomName()); err != nil {
		t.Error(err)
	}
}

func TestIDsDiffer(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b || len(a) != idLength {
		t.Errorf("%s, %s", a, b)
	}
}
