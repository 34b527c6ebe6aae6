package integration

import (
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// TestKilledWhileItStarts is torture of the moments in which command, monitor
// and pid 1 wait for each other: a command that is killed with its process
// group leaves no process that waits for it, and a container that can be
// removed.
func TestKilledWhileItStarts(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	busybox := filepath.Join(shared(t), "busybox.tar")
	writeImage(t, busybox, func(*testimage.Image) {})
	eachMode(t, func(t *testing.T, m mode) {
		adopt(t)
		s := newScene(t, m, busybox)
		for _, flags := range [][]string{{"-t"}, {"--rm"}, {"--rm", "-t"}, {"--init"}} {
			run := append(append([]string{"run", "--name", victim}, flags...), "busybox", "true")
			began := time.Now()
			s.nook(run...)
			usual := time.Since(began)
			s.must("rm", "-f", victim)
			for range 15 {
				delay := time.Duration(rand.Float64() * float64(usual))
				cmd := s.cmd("nook", run...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(delay) // the moment: nothing is waited for
				_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
				_ = cmd.Wait()
				for _, r := range s.family.others() {
					if !ended(r.pid, patience) {
						s.complain("%v outlives its command", r)
						_ = unix.Kill(r.pid, unix.SIGKILL)
					}
				}
				s.must("rm", "-f", victim)
				if len(s.bad) > 0 {
					t.Fatalf("run %q, killed after %v of %v:\n%s", flags, delay, usual, join(s.bad))
				}
			}
		}
	})
}
