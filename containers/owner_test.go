package containers

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// sleeper is a process that ends with the test, and its name for a state.
func sleeper(t *testing.T, files ...*os.File) (*exec.Cmd, Process) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	start, err := startTime(strconv.Itoa(cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return cmd, Process{cmd.Process.Pid, start, bootID()}
}

// TestKillMonitorEndsItsMonitorAlone: whoever else the state names lives on.
func TestKillMonitorEndsItsMonitorAlone(t *testing.T) {
	d := Open(t.TempDir())
	ct, other := made(t, d, "web"), made(t, d, "other")
	lock, err := ct.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	unlocked, err := os.Open(ct.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer unlocked.Close()
	_, stranger := sleeper(t)
	_, looker := sleeper(t, unlocked)
	_, holder := sleeper(t, lock.dir)
	kill := func(c Container, p Process) error {
		return c.KillMonitor(t.Context(), State{Status: Running, Monitor: p})
	}
	for name, p := range map[string]Process{"a stranger": stranger, "one that only has it open": looker} {
		if err := kill(ct, p); !errors.Is(err, ErrStranger) || !p.Alive() {
			t.Errorf("%s: got %v, alive: %v", name, err, p.Alive())
		}
	}
	if err := kill(other, holder); !errors.Is(err, ErrStranger) || !holder.Alive() {
		t.Errorf("another container's monitor: got %v, alive: %v", err, holder.Alive())
	}
	later := holder
	later.StartTime++
	if err := kill(ct, later); err != nil || !holder.Alive() {
		t.Errorf("one that began at another time: got %v, alive: %v", err, holder.Alive())
	}
	if err := kill(ct, holder); err != nil || holder.Alive() {
		t.Errorf("its monitor: got %v, alive: %v", err, holder.Alive())
	}
	if err := kill(ct, holder); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}
