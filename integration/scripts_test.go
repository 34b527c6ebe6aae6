package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// mode is a way nook gives ids to a container.
type mode struct {
	name string
	ids  string // for NOOK_IDS
	need func(t testing.TB)
}

// modes are the ways that this user can test.
func modes() []mode {
	if os.Geteuid() == 0 {
		return []mode{{"root", "auto", func(testing.TB) {}}}
	}
	return []mode{
		{"mapped", "mapped", func(t testing.TB) { testenv.Need(t, "subids", testenv.Subids) }},
		{"single", "single", func(testing.TB) {}},
	}
}

// eachMode runs f as a subtest for each way of ids.
func eachMode(t *testing.T, f func(t *testing.T, m mode)) {
	t.Helper()
	testenv.Need(t, "userns", testenv.UserNS)
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			m.need(t)
			f(t, m)
		})
	}
}

func TestScripts(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(i *testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) { runScripts(t, m, busybox) })
}

// shared is a directory for all tests of a subtest tree that others can read.
func shared(t *testing.T) string {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeImage(t *testing.T, name string, change func(*testimage.Image)) {
	t.Helper()
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	change(&img)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(img.WriteDocker(f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// scripts are those for a mode: all but what has a line "# modes:" without it.
func scripts(t *testing.T, m mode) []string {
	t.Helper()
	all, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(all) == 0 {
		t.Fatalf("scripts: %q, %v", all, err)
	}
	return slices.DeleteFunc(all, func(name string) bool {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, limited := strings.Cut(string(text), "\n# modes: ")
		line, _, _ := strings.Cut(rest, "\n")
		return limited && !slices.Contains(strings.Fields(line), m.name)
	})
}

func runScripts(t *testing.T, m mode, busybox string) {
	bin := os.Getenv(binVariable)
	// testscript leaves the removal to us, who can remove what sub-ids own.
	// The name is short because socket paths of 107 bytes lie below it.
	work, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testenv.RemoveAll(work); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{
		Files:               scripts(t, m),
		Deadline:            time.Now().Add(10 * time.Minute), // of them all: a command that hangs is ended and told
		WorkdirRoot:         work,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                commands(),
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "mapped", "single", "root":
				return cond == m.name, nil
			}
			return false, fmt.Errorf("no condition is called %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			h := newHost(e.WorkDir, bin, m)
			if err := h.make(); err != nil {
				return err
			}
			e.Vars = append(e.Vars, h.env()...)
			e.Vars = append(e.Vars, "BUSYBOX="+busybox, "MODE="+m.name)
			e.Values[keyHost{}] = h
			e.Values[keyT{}] = e.T()
			e.Defer(func() {
				defer h.end()
				if left := h.left(patience); len(left) > 0 {
					e.T().Fatal("left behind:\n" + strings.Join(left, "\n"))
				}
			})
			return nil
		},
	})
}

// keyHost and keyT are what commands find in the script's values.
type (
	keyHost struct{}
	keyT    struct{}
)
