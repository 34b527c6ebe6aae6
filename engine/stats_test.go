package engine

import (
	"errors"
	"testing"
	"time"

	"nook/containers"
	"nook/containers/processes"
)

func TestSince(t *testing.T) {
	const second = time.Second
	at := func(seconds int, cpu uint64, execed map[int]execed) use {
		return use{stat: Stat{ID: "a"}, at: time.Duration(seconds) * second, cpu: cpu, execed: execed}
	}
	for name, tc := range map[string]struct {
		before, now use
		want        float64
	}{
		"one processor":        {at(10, 500, nil), at(11, 600, nil), 100},
		"two":                  {at(10, 500, nil), at(12, 900, nil), 200},
		"idle":                 {at(10, 500, nil), at(11, 500, nil), 0},
		"started again":        {at(10, 500, nil), at(11, 20, nil), 0},
		"the same moment":      {at(10, 500, nil), at(10, 600, nil), 0},
		"another container":    {use{stat: Stat{ID: "b"}, at: 10 * second}, at(11, 600, nil), 0},
		"exec ended":           {at(10, 500, map[int]execed{7: {1, 400}}), at(11, 150, nil), 50},
		"exec goes on":         {at(10, 500, map[int]execed{7: {1, 400}}), at(11, 550, map[int]execed{7: {1, 450}}), 50},
		"its pid is another's": {at(10, 500, map[int]execed{7: {1, 400}}), at(11, 150, map[int]execed{7: {2, 50}}), 50},
	} {
		if got := tc.now.since([]use{tc.before}).CPUPercent; got != tc.want {
			t.Errorf("%s: got %.1f%%, want %.1f%%", name, got, tc.want)
		}
	}
}

func TestAdd(t *testing.T) {
	var u use
	u.add([]processes.Process{
		{Pid: 10, Parent: 9, Inner: 1, State: 'S', Threads: 2, UserTime: 1, SysTime: 2, ChildTime: 40, Resident: 100},
		{Pid: 11, Parent: 10, Inner: 2, State: 'Z', Threads: 1, UserTime: 5, Resident: 7},
		{Pid: 12, Parent: 9, Inner: 3, State: 'R', Threads: 1, UserTime: 9, Start: 3, Resident: 50},
	}, 9, false)
	if u.cpu != 57 || u.stat.Threads != 3 || u.stat.Memory != 150 || len(u.execed) != 1 || u.execed[12] != (execed{3, 9}) {
		t.Errorf("got %+v, want 57 ticks, 3 threads, 150 bytes and one exec'ed", u)
	}
}

// TestStats of containers that come and go.
func TestStats(t *testing.T) {
	e := loaded(t, "single", nil)
	busy := detached(t, e, "while :; do :; done")
	idle := detached(t, e, "sleep 1001 & wait")
	o := StatsOptions{Names: []string{busy[:10], idle}, Interval: 100 * time.Millisecond}
	rounds := 0
	err := e.Stats(t.Context(), o, func(stats []Stat) error {
		rounds++
		// The busy one's beginning may have been as slow as the idle one's.
		if len(stats) == 2 && stats[0].CPUPercent > stats[1].CPUPercent && stats[1].Threads == 2 {
			if b := stats[0]; b.Asked != busy[:10] || b.ID != busy || b.Memory == 0 || b.MemoryLimit < b.Memory || b.Source != SourceProc {
				t.Errorf("got %+v", b)
			}
			// One goes: the other is told of, until it goes too.
			return e.RemoveContainer(t.Context(), busy, RemoveOptions{Force: true})
		}
		if len(stats) == 1 {
			if stats[0].ID != idle {
				t.Errorf("got %+v, want the one that is left", stats[0])
			}
			return e.RemoveContainer(t.Context(), idle, RemoveOptions{Force: true})
		}
		return t.Context().Err()
	})
	if err != nil || rounds < 2 {
		t.Errorf("got %v after %d rounds, want an end when all are gone", err, rounds)
	}
	if err := e.Stats(t.Context(), o, nil); !errors.Is(err, containers.ErrNotFound) {
		t.Errorf("of containers that are gone: got %v", err)
	}
	nothingLeft(t, e)
}

// TestStatsOfAll: without names, what runs; with All, the others too.
func TestStatsOfAll(t *testing.T) {
	e := loaded(t, "single", nil)
	runs := detached(t, e, "sleep 1001")
	over := detached(t, e, "true")
	if _, err := e.Wait(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		o := StatsOptions{All: all, Once: true, Interval: time.Millisecond}
		err := e.Stats(t.Context(), o, func(stats []Stat) error {
			seen := map[string]Stat{}
			for _, s := range stats {
				seen[s.ID] = s
			}
			_, there := seen[over]
			if seen[runs].Threads != 1 || there != all || seen[over].Threads != 0 {
				t.Errorf("all %v: got %+v", all, stats)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
