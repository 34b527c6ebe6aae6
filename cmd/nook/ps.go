package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"nook/containers"
	"nook/containers/events"
	"nook/engine"
	"nook/images"
)

// shower is the part of *engine.Engine that shows containers, and changes what
// they are called.
type shower interface {
	List(context.Context, engine.ListOptions) ([]engine.Summary, error)
	InspectContainer(ctx context.Context, nameOrID string, size bool) (*engine.ContainerInspection, error)
	Rename(ctx context.Context, nameOrID, name string) error
	Update(ctx context.Context, nameOrID string, o engine.UpdateOptions) error
	Prune(context.Context, engine.PruneOptions) (engine.Pruned, error)
	Events(context.Context, engine.EventsOptions, func(events.Event) error) error
}

func psVerb() verb {
	return verb{
		name:    "ps",
		long:    []string{"container ls", "container list", "container ps"},
		about:   "List containers",
		usage:   "[OPTIONS]",
		common:  true,
		options: psOptions,
		run:     (*shell).ps,
	}
}

func psOptions() []option {
	return []option{
		{name: "all", short: "a", usage: "Show all containers (default shows just running)"},
		{name: "filter", short: "f", value: "list", usage: "Filter output based on conditions provided: KEY=VALUE"},
		{name: "format", value: "string", usage: formatUsage},
		{name: "last", short: "n", value: "int", usage: "Show n last created containers (includes all states)"},
		{name: "latest", short: "l", usage: "Show the latest created container (includes all states)"},
		{name: "no-trunc", usage: "Don't truncate output"},
		{name: "quiet", short: "q", usage: "Only display container IDs"},
		{name: "size", short: "s", usage: "Display total file sizes"},
	}
}

// psRow is a line of docker ps. The fields are those that docker's templates
// have, in the order of its JSON.
type psRow struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
}

// Label is for templates: {{.Label "com.example.tier"}}.
func (r psRow) Label(name string) string { return r.labels[name] }

// psHeaders has the method that a template may call as of a row.
type psHeaders map[string]string

// Label is the header of a label's column: its last word, as docker has it.
func (psHeaders) Label(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.ToUpper(strings.NewReplacer("-", " ", "_", " ").Replace(last))
}

func newPsHeaders() psHeaders {
	return psHeaders{
		"Command":      "COMMAND",
		"CreatedAt":    "CREATED AT",
		"ID":           "CONTAINER ID",
		"Image":        "IMAGE",
		"Labels":       "LABELS",
		"LocalVolumes": "LOCAL VOLUMES",
		"Mounts":       "MOUNTS",
		"Names":        "NAMES",
		"Networks":     "NETWORKS",
		"Ports":        "PORTS",
		"RunningFor":   "CREATED",
		"Size":         "SIZE",
		"State":        "STATE",
		"Status":       "STATUS",
	}
}

const psTable = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

func (s *shell) ps(c *cli.Context) error {
	o, err := readListOptions(c)
	if err != nil {
		return err
	}
	table := psTable
	if o.Size {
		table += "\t{{.Size}}"
	}
	f := readFormat(c.String("format"), table)
	if c.Bool("quiet") { // whatever --format says, as docker
		f = format{template: "{{.ID}}"}
	}
	if !c.IsSet("size") && usesSize(f.template) {
		o.Size = true
	}
	return work(c.Context, func(ctx context.Context) error {
		nook, err := s.engine(ctx, c)
		if err != nil {
			return err
		}
		all, err := nook.List(ctx, o)
		if err != nil {
			return err
		}
		rows := make([]psRow, len(all))
		for i, container := range all {
			rows[i] = newPsRow(container, c.Bool("no-trunc"), s.now())
		}
		return writeRows(s.stdout, f, newPsHeaders(), rows)
	})
}

func readListOptions(c *cli.Context) (engine.ListOptions, error) {
	o := engine.ListOptions{All: c.Bool("all"), Size: c.Bool("size")}
	var err error
	if o.Filters, err = engine.ParseFilters(c.StringSlice("filter")); err != nil {
		return o, err
	}
	if c.Bool("latest") {
		o.Last = 1
	}
	if c.IsSet("last") {
		o.Last, err = readInt("--last", c.String("last"))
	}
	return o, err
}

// usesSize tells whether a template wants sizes, which cost counting.
func usesSize(template string) bool {
	return strings.Contains(template, ".Size") || strings.Contains(template, "json .}") || strings.Contains(template, "json . }")
}

func newPsRow(c engine.Summary, whole bool, now time.Time) psRow {
	command, mounts, volumes := c.Command, []string{}, 0
	shorten := ellipsis
	if whole {
		shorten = func(text string, _ int) string { return text }
	}
	for _, m := range c.Mounts {
		switch m.Type { // docker's list has no --tmpfs either
		case "bind":
			mounts = append(mounts, shorten(m.Source, 15))
		case "volume":
			mounts = append(mounts, shorten(m.Name, 15))
			volumes++
		}
	}
	row := psRow{
		Command:      strconv.Quote(shorten(commandLine(command), 20)),
		CreatedAt:    c.Created.In(now.Location()).Format("2006-01-02 15:04:05 -0700 MST"),
		ID:           shortID(c.ID, whole),
		Image:        imageText(c, whole),
		LocalVolumes: strconv.Itoa(volumes),
		Mounts:       strings.Join(mounts, ","),
		Names:        c.Name,
		Networks:     c.Network,
		RunningFor:   units.HumanDuration(now.Sub(c.Created)) + " ago",
		Size:         units.HumanSizeWithPrecision(float64(c.Size), 3),
		State:        string(c.State.Status),
		Status:       statusText(c.State, now),
		labels:       c.Labels,
	}
	if c.RootSize > 0 {
		row.Size += " (virtual " + units.HumanSizeWithPrecision(float64(c.RootSize), 3) + ")"
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		labels = append(labels, k+"="+c.Labels[k])
	}
	row.Labels = strings.Join(labels, ",")
	return row
}

// imageText is a container's image; in short without a digest.
func imageText(c engine.Summary, whole bool) string {
	if whole {
		return c.Image
	}
	if c.Image == c.ImageID {
		return images.ShortID(c.ImageID)
	}
	name, _, _ := strings.Cut(c.Image, "@")
	return name
}

// commandLine joins a command as docker does: an argument with a space is
// quoted, the program's name is not.
func commandLine(command []string) string {
	words := slices.Clone(command)
	for i := 1; i < len(words); i++ {
		if strings.Contains(words[i], " ") {
			words[i] = "'" + words[i] + "'"
		}
	}
	return strings.Join(words, " ")
}

// ellipsis cuts text to n characters, the last of which tells that it was cut.
func ellipsis(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

// statusText is docker's one line about a state (State.String of its daemon).
func statusText(state containers.State, now time.Time) string {
	since := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch state.Status {
	case containers.Created:
		return "Created"
	case containers.Paused:
		return "Up " + since(state.Started) + " (Paused)"
	case containers.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", state.ExitCode, since(state.Finished))
	case containers.Running:
		up := "Up " + since(state.Started)
		switch {
		case state.Health == nil:
		case state.Health.Status == "starting":
			up += " (health: starting)"
		default:
			up += " (" + state.Health.Status + ")"
		}
		return up
	}
	if state.Finished.IsZero() { // its end could not be written down
		return fmt.Sprintf("Exited (%d)", state.ExitCode)
	}
	return fmt.Sprintf("Exited (%d) %s ago", state.ExitCode, since(state.Finished))
}
