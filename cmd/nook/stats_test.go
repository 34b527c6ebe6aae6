package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"nook/containers/processes"
	"nook/engine"
)

// watched is an engine whose containers do what the test says.
type watched struct {
	fake
	top    engine.TopResult
	psArgs []string
	stats  engine.StatsOptions
	rounds [][]engine.Stat
}

func (w *watched) Top(_ context.Context, name string, psArgs ...string) (engine.TopResult, error) {
	w.asked, w.psArgs = append(w.asked, name), psArgs
	return w.top, w.err
}

func (w *watched) Stats(_ context.Context, o engine.StatsOptions, show func([]engine.Stat) error) error {
	w.stats = o
	for _, round := range w.rounds {
		if err := show(round); err != nil || o.Once {
			return err
		}
	}
	return w.err
}

// typedAt is typed for an engine of another type.
func typedAt(t *testing.T, nook backend, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	s := newShell()
	s.stdout, s.stderr, s.bars = &out, &errs, nil
	s.open = func(context.Context, engine.Options) (backend, error) { return nook, nil }
	code = s.main(args)
	return out.String(), errs.String(), code
}

func someStats() [][]engine.Stat {
	const mib = 1 << 20
	web := engine.Stat{
		Asked: "web", ID: strings.Repeat("0123456789abcdef", 4), Name: "web", CPUPercent: 103.256,
		Memory: 12*mib + mib/3, MemoryLimit: 7872 * mib, Threads: 7, Source: engine.SourceProc,
		Network: processes.Traffic{In: 1250, Out: 0}, Block: processes.Traffic{In: 0, Out: 45_600_000},
	}
	idle := engine.Stat{ID: strings.Repeat("fedcba9876543210", 4), Name: "a-long-name", Source: engine.SourceProc}
	idle.Asked = idle.ID
	return [][]engine.Stat{{web, idle}, {idle}}
}

func TestStats(t *testing.T) {
	for name, args := range map[string][]string{
		"stats.txt":        {"--no-stream"},
		"stats-stream.txt": {"web", "fedc"},
		"stats-json.txt":   {"--no-stream", "--format", "json"},
		"stats-wide.txt":   {"--no-stream", "--no-trunc", "-a", "--format", `table {{.Container}}\t{{.ID}}\t{{.PIDs}}`},
		"stats-own.txt":    {"--no-stream", "--format", "{{.Container}}: {{.CPUPerc}} of {{.Name}}"},
	} {
		w := &watched{rounds: someStats()}
		out, errs, code := typedAt(t, w, append([]string{"stats"}, args...)...)
		if code != 0 || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "/proc") {
			t.Errorf("%q: code %d, stderr %q, want one line that names /proc", args, code, errs)
		}
		golden(t, name, out)
		if w.stats.Once != slices.Contains(args, "--no-stream") || w.stats.All != slices.Contains(args, "-a") {
			t.Errorf("%q: got %+v", args, w.stats)
		}
	}
}

// TestStatsTemplateIsReadFirst: not after the first interval.
func TestStatsTemplateIsReadFirst(t *testing.T) {
	w := &watched{}
	out, errs, code := typedAt(t, w, "stats", "--format", "{{.Nothing}}")
	if code != 125 || out != "" || !strings.Contains(errs, "template") || len(w.stats.Names) > 0 {
		t.Errorf("got code %d, %q, %q", code, out, errs)
	}
}

func TestStatsRedraws(t *testing.T) {
	var out bytes.Buffer
	s := &shell{stdout: &out}
	for _, page := range []string{"A\nBB\n", "C\n"} {
		if err := s.writePage([]byte(page), true); err != nil {
			t.Fatal(err)
		}
	}
	if want := "\x1b[HA\x1b[K\nBB\x1b[K\n\x1b[J\x1b[HC\x1b[K\n\x1b[J"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestTop(t *testing.T) {
	w := &watched{top: engine.TopResult{
		Titles:    []string{"PID", "COMMAND"},
		Processes: [][]string{{"17", "sh -c 'x  y'"}, {"4711", "sleep 1"}},
	}}
	out, errs, code := typedAt(t, w, "top", "web", "-o", "pid,args")
	if code != 0 || errs != "" {
		t.Fatalf("code %d, stderr %q", code, errs)
	}
	golden(t, "top.txt", out)
	if want := []string{"-o", "pid,args"}; !slices.Equal(w.psArgs, want) || !slices.Equal(w.asked, []string{"web"}) {
		t.Errorf("asked for %q with %q, want web with %q", w.asked, w.psArgs, want)
	}
	if _, errs, code = typedAt(t, w, "top"); code != 125 || !strings.Contains(errs, "requires at least 1 argument") {
		t.Errorf("without a container: code %d, %q", code, errs)
	}
}
