package testenv_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
)

func TestMain(m *testing.M) { testenv.RunAsTestUser(m) }

func TestRunsAsAnUnprivilegedUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Fatal("the tests run as root")
	}
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "TMPDIR"} {
		dir := os.Getenv(name)
		if dir == "" && name == "TMPDIR" {
			dir = "/tmp"
		}
		if dir == "" {
			continue // a person's own environment may lack it
		}
		f, err := os.CreateTemp(dir, "probe")
		if err != nil {
			t.Errorf("%s=%s can't be written: %v", name, dir, err)
			continue
		}
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The copy can be started again by its path, as a helper of a test.
	if out, err := exec.Command(exe, "-test.list", "NoSuchTest").CombinedOutput(); err != nil {
		t.Errorf("start %s again: %v: %s", exe, err, out)
	}
}

// TestNeed runs this binary again, so that a skip and a failure can be seen
// from outside.
func TestNeed(t *testing.T) {
	for _, tc := range []struct {
		mustWork, want string
	}{
		{"", "--- SKIP"},
		{"userns,other", "--- SKIP"},
		{"userns,broken", "--- FAIL"},
		{"all", "--- FAIL"},
	} {
		t.Run(tc.mustWork, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "-test.run", "^TestNeedHelper$", "-test.v")
			cmd.Env = append(os.Environ(), "NOOK_TEST_NEED=1", testenv.MustWorkVariable+"="+tc.mustWork)
			out, _ := cmd.CombinedOutput()
			if !strings.Contains(string(out), tc.want) || !strings.Contains(string(out), "it is broken") {
				t.Errorf("got %s\nwant %q with the reason", out, tc.want)
			}
		})
	}
}

func TestNeedHelper(t *testing.T) {
	if os.Getenv("NOOK_TEST_NEED") == "" {
		return
	}
	testenv.Need(t, "broken", func() error { return errors.New("it is broken") })
	t.Error("went on after a probe that failed")
}

func TestProbes(t *testing.T) {
	for _, p := range []struct {
		name  string
		probe func() error
	}{
		{"userns", testenv.UserNS},
		{"overlay", testenv.Overlay},
		{"tmpfs", testenv.Tmpfs},
		{"subids", testenv.Subids},
		{"busybox", testenv.BusyboxStatic},
		{"mmdebstrap", testenv.Mmdebstrap},
		{"umoci", testenv.Umoci},
		{"skopeo", testenv.Skopeo},
		{"buildah", testenv.Buildah},
		{"zstd", testenv.Zstd},
		{"setcap", testenv.Setcap},
		{"docker-registry", testenv.DockerRegistry},
		{"long", testenv.Long},
	} {
		t.Run(p.name, func(t *testing.T) { testenv.Need(t, p.name, p.probe) })
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "nook-probe-*"))
	if len(left) > 0 {
		t.Errorf("the probes left %v", left)
	}
}

func TestProgramSaysWhichPackage(t *testing.T) {
	err := testenv.Program("no-such-program-of-nook")()
	if err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("got %v, want advice to install", err)
	}
}
