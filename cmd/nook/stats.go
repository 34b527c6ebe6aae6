package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/engine"
)

func statsVerb() verb {
	return verb{
		name:    "stats",
		long:    []string{"container stats"},
		about:   "Display a live stream of container(s) resource usage statistics",
		usage:   "[OPTIONS] [CONTAINER...]",
		max:     -1,
		options: statsOptions,
		run:     (*shell).stats,
	}
}

func statsOptions() []option {
	return []option{
		{name: "all", short: "a", usage: "Show all containers (default shows just running)"},
		{name: "format", value: "string", usage: formatUsage},
		{name: "no-stream", usage: "Disable streaming stats and only pull the first result"},
		{name: "no-trunc", usage: "Do not truncate output"},
	}
}

// statsRow is a line of docker stats, in the order of its JSON.
type statsRow struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

func statsHeaders() map[string]string {
	return map[string]string{
		"BlockIO":   "BLOCK I/O",
		"CPUPerc":   "CPU %",
		"Container": "CONTAINER",
		"ID":        "CONTAINER ID",
		"MemPerc":   "MEM %",
		"MemUsage":  "MEM USAGE / LIMIT",
		"Name":      "NAME",
		"NetIO":     "NET I/O",
		"PIDs":      "PIDS",
	}
}

const statsTable = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

// statsSources are what is said, once, of where numbers come from.
func statsSources() map[string]string {
	return map[string]string{
		engine.SourceProc: "no cgroup of the containers is ours: the numbers are sums over their processes in /proc",
	}
}

func (s *shell) stats(c *cli.Context) error {
	f := readFormat(c.String("format"), statsTable)
	whole, once := c.Bool("no-trunc"), c.Bool("no-stream")
	o := engine.StatsOptions{Names: c.Args().Slice(), All: c.Bool("all"), Once: once}
	// A template that can't be filled is told before the first wait.
	if err := writeRows(io.Discard, f, statsHeaders(), []statsRow{{}}); err != nil {
		return err
	}
	redraw := !once && asTerminal(s.stdout) != nil
	said := map[string]bool{}
	// No signal is caught: ending it is how a stream is used.
	nook, err := s.engine(c.Context, c)
	if err != nil {
		return err
	}
	return nook.Stats(c.Context, o, func(stats []engine.Stat) error {
		rows := make([]statsRow, len(stats))
		for i, stat := range stats {
			rows[i] = newStatsRow(stat, whole)
			if text := statsSources()[stat.Source]; text != "" && !said[stat.Source] {
				said[stat.Source] = true
				s.note(text)
			}
		}
		var page bytes.Buffer
		if err := writeRows(&page, f, statsHeaders(), rows); err != nil {
			return err
		}
		return s.writePage(page.Bytes(), redraw)
	})
}

// writePage prints a round. On a terminal it takes the place of the round
// before: each line is cleared behind its end, and what is below the last.
func (s *shell) writePage(page []byte, redraw bool) error {
	const home, clearLine, clearBelow = "\x1b[H", "\x1b[K", "\x1b[J"
	if redraw {
		page = bytes.ReplaceAll(page, []byte("\n"), []byte(clearLine+"\n"))
		page = append(append([]byte(home), page...), clearBelow...)
	}
	_, err := s.stdout.Write(page)
	return err
}

func newStatsRow(stat engine.Stat, whole bool) statsRow {
	traffic := func(in, out uint64) string {
		return units.HumanSizeWithPrecision(float64(in), 3) + " / " + units.HumanSizeWithPrecision(float64(out), 3)
	}
	asked := stat.Asked
	if asked == stat.ID {
		asked = shortID(asked, whole)
	}
	return statsRow{
		BlockIO:   traffic(stat.Block.In, stat.Block.Out),
		CPUPerc:   fmt.Sprintf("%.2f%%", stat.CPUPercent),
		Container: asked,
		ID:        shortID(stat.ID, whole),
		MemPerc:   fmt.Sprintf("%.2f%%", stat.MemoryPercent()),
		MemUsage:  units.BytesSize(float64(stat.Memory)) + " / " + units.BytesSize(float64(stat.MemoryLimit)),
		Name:      stat.Name,
		NetIO:     traffic(stat.Network.In, stat.Network.Out),
		PIDs:      fmt.Sprint(stat.Threads),
	}
}
