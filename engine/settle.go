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

// settleStale tells the end of a container whose monitor is gone without having
// told it, and writes it down. While somebody else holds the container it is
// theirs to write; that may be the last threads of the monitor.
func (e *Engine) settleStale(ct containers.Container) containers.State {
	if held, err := ct.TryLock(); err == nil {
		defer held.Release()
		return e.settleHeld(ct)
	}
	state, err := ct.State()
	if err == nil && state.Lost {
		tellEnd(&state)
	}
	return state
}

// settleHeld is settleStale for who holds the container. What can't be written
// is told all the same: whoever reads the state meets it again.
func (e *Engine) settleHeld(ct containers.Container) containers.State {
	state, err := ct.State()
	if err != nil || !state.Lost {
		return state
	}
	ct.RemoveSocket(state)
	tellEnd(&state)
	if ct.WriteState(state, atomicfile.Durable) != nil {
		return state
	}
	state.Lost = false
	if cfg, err := ct.Config(); err == nil {
		e.event("die", cfg, "exitCode", strconv.Itoa(state.ExitCode))
	}
	return state
}

// tellEnd fills in what is known of an end that nobody saw.
func tellEnd(state *containers.State) {
	state.Error, state.Finished = "its monitor was killed", time.Now().UTC()
	// The end was before this boot, whenever that was exactly.
	if self, err := containers.Self(); err == nil && state.Monitor.Boot != self.Boot {
		state.Error = "the machine was restarted meanwhile"
		if booted := bootTime(); booted.After(state.Started) && booted.Before(state.Finished) {
			state.Finished = booted
		}
	}
	state.Monitor, state.Socket, state.Health = containers.Process{}, "", ended(state.Health)
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
