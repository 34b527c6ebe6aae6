package monitor

import (
	"os/exec"
	"syscall"
	"testing"

	"nook/containers"
)

// A stop that comes between two runs, while the next one is being started, is
// the end of that one: nobody else would end it.
func TestStopBetweenTwoRuns(t *testing.T) {
	dir := t.TempDir()
	m := &monitor{
		container: containers.At(dir), root: dir, config: &containers.Config{Remove: true},
		state: containers.State{Monitor: containers.Process{Pid: 1}}, stopped: make(chan struct{}),
	}
	next := exec.Command("sleep", "1000")
	if err := next.Start(); err != nil {
		t.Fatal(err)
	}
	m.stopping()
	if _, err := m.running(); err == nil {
		t.Error("something ran before the next run began")
	}
	if err := m.started(&life{pid: next.Process.Pid}); err != nil {
		t.Error(err)
	}
	_ = next.Process.Signal(syscall.SIGTERM) // too late for one that was killed
	_ = next.Wait()
	if status := next.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v, want its kill", next.ProcessState)
	}
}
