package integration

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"nook/internal/testenv"
)

// binVariable names the directory with the built nook and refuse. The process
// that go test started builds them, with the go command and cache of whoever
// started it; the ones it starts as other users find them here.
const binVariable = "NOOK_TEST_BIN"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// What nohup(1) left ignored would be ignored by all that the tests start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	if os.Getenv(binVariable) == "" {
		dir, err := build()
		defer os.RemoveAll(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
		if err := os.Setenv(binVariable, dir); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	}
	code := testenv.AsTestUser(m)
	if testenv.Drops() {
		code = max(code, m.Run()) // once more, as root
	}
	return code
}

// build makes the binaries as the Makefile does. NOOK_TEST_NOOK names a nook to
// test instead, such as one that is installed.
func build() (dir string, err error) {
	dir, err = os.MkdirTemp("/tmp", "nook-integration-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	nook := filepath.Join(dir, "nook")
	if given := os.Getenv("NOOK_TEST_NOOK"); given != "" {
		text, err := os.ReadFile(given)
		if err == nil {
			err = os.WriteFile(nook, text, 0o755)
		}
		if err != nil {
			return dir, err
		}
	} else if err := gobuild(nook, "nook/cmd/nook"); err != nil {
		return dir, err
	}
	return dir, gobuild(filepath.Join(dir, "refuse"), "nook/integration/refuse")
}

func gobuild(out, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "urfave_cli_no_docs", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, said)
	}
	return nil
}
