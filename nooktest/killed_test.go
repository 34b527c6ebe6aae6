package nooktest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
)

// victimVariable says how TestVictim ends.
const victimVariable = "NOOKTEST_VICTIM"

// TestVictim is run by others, in a process of its own.
func TestVictim(t *testing.T) {
	how := os.Getenv(victimVariable)
	if how == "" {
		return
	}
	// Two processes, told from all others by their arguments.
	token := "token" + strconv.Itoa(os.Getpid())
	c := Start(t, script(archive(t), "echo up; sh -c 'sleep 1000; : "+token+"' & sleep 1000; : "+token))
	c.WaitForLog("^up$")
	fmt.Printf("VICTIM %s %s %s\n", c.ID(), token, os.Getenv(rootVariable))
	switch how {
	case "fail":
		t.Error("as it was told to")
	case "panic":
		panic("as a test does")
	case "exit":
		os.Exit(7)
	case "kill":
		select {}
	}
}

// TestNothingIsLeftBehind, whatever becomes of the test process.
func TestNothingIsLeftBehind(t *testing.T) {
	archive(t) // for its probes
	for how, keepsRoot := range map[string]bool{"pass": false, "fail": false, "panic": true, "exit": true, "kill": true} {
		t.Run(how, func(t *testing.T) {
			temp, err := os.MkdirTemp("", "v")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := testenv.RemoveAll(temp); err != nil {
					t.Error(err)
				}
			})
			t.Setenv("TMPDIR", temp)
			defer sweep() // also of what should not be there
			out, id, token, root := victim(t, how, temp)
			nothingRuns(t, id, token, root)
			for _, left := range []string{"containers/" + id, "containers/names/*"} {
				if found, _ := filepath.Glob(filepath.Join(root, left)); len(found) > 0 {
					t.Errorf("left behind: %v", found)
				}
			}
			if how == "fail" && !strings.Contains(out, "it was running; its output ends:\n") {
				t.Errorf("the failure tells nothing of the container:\n%s", out)
			}
			if _, err := os.Stat(root); (err == nil) != keepsRoot {
				t.Errorf("the data root: %v", err)
			}
			sweep()
			if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the data root after a sweep: %v", err)
			}
		})
	}
}

// victim runs TestVictim to its end.
func victim(t *testing.T, how, temp string) (output, id, token, root string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestVictim$", "-test.v")
	cmd.Env = append(os.Environ(), victimVariable+"="+how, "TMPDIR="+temp, rootVariable+"=")
	var rest, errs bytes.Buffer
	cmd.Stderr = &errs
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		rest.WriteString(lines.Text() + "\n")
		if _, err := fmt.Sscanf(lines.Text(), "VICTIM %s %s %s", &id, &token, &root); err == nil && how == "kill" {
			_ = cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	if id == "" || (how == "pass") != (err == nil) {
		t.Fatalf("%v: %s%s", err, rest.String(), errs.String())
	}
	return rest.String(), id, token, root
}

// nothingRuns waits for the end of every process with one of the words in its
// arguments, and of every mount of the root in what is left.
func nothingRuns(t *testing.T, id, token, root string) {
	t.Helper()
	for {
		var left []string
		processes, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range processes {
			args, _ := os.ReadFile(p + "/cmdline") // empty of one that has ended
			mounts, _ := os.ReadFile(p + "/mountinfo")
			if bytes.Contains(args, []byte(id)) || bytes.Contains(args, []byte(token)) || bytes.Contains(mounts, []byte(root)) {
				left = append(left, fmt.Sprintf("%s %q", p, args))
			}
		}
		if len(left) == 0 {
			return
		}
		if deadline, ok := t.Deadline(); ok && time.Until(deadline) < time.Second {
			t.Fatalf("still there: %v", left)
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 5e6}, nil)
	}
}
