package engine

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"time"

	"nook/containers"
	"nook/internal/atomicfile"
)

// settleStale writes down the end of a container whose monitor is gone without
// having done so, and returns its state. While somebody else holds it, it is
// theirs to write.
func (e *Engine) settleStale(ct containers.Container) containers.State {
	if held, err := ct.TryLock(); err == nil {
		defer held.Release()
		return e.settleHeld(ct)
	}
	state, _ := ct.State()
	return state
}

// settleHeld is settleStale for who holds the container. A state that can't be
// read or written stays as it is: whoever reads it meets the same again.
func (e *Engine) settleHeld(ct containers.Container) containers.State {
	state, err := ct.State()
	if err != nil || !state.Lost {
		return state
	}
	state.Error, state.Finished = "its monitor was killed", time.Now().UTC()
	// The end was before this boot, whenever that was exactly.
	if self, err := containers.Self(); err == nil && state.Monitor.Boot != self.Boot {
		state.Error = "the machine was restarted meanwhile"
		if booted := bootTime(); booted.After(state.Started) && booted.Before(state.Finished) {
			state.Finished = booted
		}
	}
	state.Monitor, state.Socket, state.Health = containers.Process{}, "", ended(state.Health)
	if ct.WriteState(state, atomicfile.Durable) == nil {
		state.Lost = false
		if cfg, err := ct.Config(); err == nil {
			e.event("die", cfg, "exitCode", strconv.Itoa(state.ExitCode))
		}
	}
	return state
}

// ended is what a container that ended tells of its health: docker keeps the
// last checks and calls it unhealthy.
func ended(h *containers.Health) *containers.Health {
	if h != nil {
		h.Status = "unhealthy"
	}
	return h
}

// bootTime is when this boot began; zero where /proc doesn't say (proc_stat(5),
// btime).
func bootTime() time.Time {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "btime "); ok {
			if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
				return time.Unix(seconds, 0).UTC()
			}
		}
	}
	return time.Time{}
}
