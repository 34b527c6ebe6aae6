package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nook/containers"
	"nook/containers/events"
	"nook/engine"
	"nook/internal/hint"
)

// fakeShower is the fake's part for the verbs that show containers.
type fakeShower struct {
	list     []engine.Summary
	listed   engine.ListOptions
	changed  []string
	pruned   engine.PruneOptions
	events   []events.Event
	followed engine.EventsOptions
}

func (f *fakeShower) List(_ context.Context, o engine.ListOptions) ([]engine.Summary, error) {
	f.listed = o
	return f.list, nil
}

func (f *fakeShower) InspectContainer(_ context.Context, name string, size bool) (*engine.ContainerInspection, error) {
	if !strings.HasPrefix(name, "web") {
		return nil, hint.Errorf("see --root", "container %q: %w", name, containers.ErrNotFound)
	}
	in := &engine.ContainerInspection{ID: "c0ffee", Name: "/" + name, State: engine.InspectedState{Status: "running", Running: true}}
	if bytes := int64(5); size {
		in.SizeRw = &bytes
	}
	return in, nil
}

func (f *fakeShower) Rename(_ context.Context, old, name string) error {
	f.changed = append(f.changed, old+" is "+name)
	return nil
}

func (f *fakeShower) Update(_ context.Context, name string, o engine.UpdateOptions) error {
	f.changed = append(f.changed, fmt.Sprintf("%s restarts %s %d", name, o.Restart.Name, o.Restart.Retries))
	return nil
}

func (f *fakeShower) Prune(_ context.Context, o engine.PruneOptions) (engine.Pruned, error) {
	f.pruned = o
	return engine.Pruned{IDs: []string{"c0ffee", "decade"}, Bytes: 1234567}, nil
}

func (f *fakeShower) Events(_ context.Context, o engine.EventsOptions, visit func(events.Event) error) error {
	f.followed = o
	for _, e := range f.events {
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

func someContainers() []engine.Summary {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	id := func(letter string) string { return strings.Repeat(letter, 64) }
	health := func(status string) *containers.Health { return &containers.Health{Status: status} }
	list := []engine.Summary{
		{Name: "new", Created: ago(5 * time.Second), State: containers.State{Status: containers.Created}},
		{Name: "up", Created: ago(2 * time.Hour), State: containers.State{Status: containers.Running, Started: ago(2 * time.Hour)},
			Command: []string{"nginx", "-g", "daemon off;"}, Labels: map[string]string{"com.example.tier": "front", "b": "x"},
			Mounts: []containers.Mount{{Type: "bind", Source: "/srv/a-long-path/web", Target: "/w"}, {Type: "tmpfs", Target: "/t"}},
			Size:   2000, RootSize: 4_263_502},
		{Name: "fine", Created: ago(6 * time.Minute), State: containers.State{Status: containers.Running, Started: ago(5 * time.Minute), Health: health("healthy")}},
		{Name: "begins", Created: ago(4 * time.Second), State: containers.State{Status: containers.Running, Started: ago(3 * time.Second), Health: health("starting")}},
		{Name: "rests", Created: ago(3 * time.Hour), State: containers.State{Status: containers.Paused, Started: ago(2 * time.Hour), Health: health("healthy")}},
		{Name: "over", Created: ago(time.Hour), State: containers.State{Status: containers.Exited, Started: ago(time.Hour), Finished: ago(3 * time.Minute)}},
		{Name: "again", Created: ago(time.Hour), State: containers.State{Status: containers.Restarting, ExitCode: 1, Finished: ago(5 * time.Second)}},
		{Name: "lost", Created: ago(time.Hour), State: containers.State{Status: containers.Exited, ExitCode: 137}},
	}
	for i := range list {
		list[i].ID, list[i].Image, list[i].Network = id(string(rune('a'+i))), "busybox", "none"
		if list[i].Command == nil {
			list[i].Command = []string{"sh"}
		}
	}
	return list
}

func TestPsTables(t *testing.T) {
	for file, args := range map[string]string{
		"ps":          "ps -a",
		"ps-no-trunc": "ps -a --no-trunc",
		"ps-size":     "ps -as",
		"ps-json":     "ps -a --format json",
		"ps-fields":   "container ls -a --format table·{{.ID}}\\t{{.Labels}}\\t{{.Label·\"com.example.tier\"}}\\t{{.Mounts}}\\t{{.State}}\\t{{.Networks}}\\t{{.CreatedAt}}",
	} {
		t.Run(args, func(t *testing.T) {
			words := strings.Fields(args)
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "·", " ")
			}
			f := &fake{fakeShower: fakeShower{list: someContainers()}}
			stdout, stderr, code := typed(t, f, nil, words...)
			if code != 0 || stderr != "" {
				t.Errorf("exit %d, stderr %q", code, stderr)
			}
			golden(t, file+".txt", stdout)
		})
	}
}

func TestPsHandsOnItsFlags(t *testing.T) {
	for args, want := range map[string]engine.ListOptions{
		"ps":                       {},
		"container ps -a":          {All: true},
		"ps -n 3":                  {Last: 3},
		"ps -l":                    {Last: 1},
		"ps -n=-1":                 {Last: -1},
		"ps -s":                    {Size: true},
		"ps --format {{.Size}}":    {Size: true},
		"ps --format {{json·.}}":   {Size: true},
		"ps --format json":         {},
		"ps -s=false --format a.S": {},
		"ps -f name=web -f label=a=b --filter label=c": {Filters: map[string][]string{"name": {"web"}, "label": {"a=b", "c"}}},
	} {
		f := &fake{}
		words := strings.Fields(args)
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "·", " ")
		}
		_, stderr, code := typed(t, f, nil, words...)
		if want.Filters == nil {
			want.Filters = map[string][]string{}
		}
		if got := fmt.Sprintf("%+v", f.listed); got != fmt.Sprintf("%+v", want) || code != 0 {
			t.Errorf("%s: exit %d %s, asked %s, want %+v", args, code, stderr, got, want)
		}
	}
	for args, want := range map[string]string{
		"ps -f web": "filter \"web\"", "ps -n x": `invalid value "x" for --last`, "ps web": "accepts no arguments",
	} {
		if _, stderr, code := typed(t, &fake{}, nil, strings.Fields(args)...); code != 125 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, want 125 and %q", args, code, stderr, want)
		}
	}
}

func TestPsQuiet(t *testing.T) {
	f := &fake{fakeShower: fakeShower{list: someContainers()[:2]}}
	for args, want := range map[string]string{
		"-q": "aaaaaaaaaaaa\nbbbbbbbbbbbb\n", "-aq --format {{.Names}}": "aaaaaaaaaaaa\nbbbbbbbbbbbb\n",
		"-q --format json": "aaaaaaaaaaaa\nbbbbbbbbbbbb\n",
		"-q --no-trunc":    strings.Repeat("a", 64) + "\n" + strings.Repeat("b", 64) + "\n",
	} {
		stdout, stderr, code := typed(t, f, nil, append([]string{"ps"}, strings.Fields(args)...)...)
		if stdout != want || code != 0 {
			t.Errorf("%s: exit %d %s, got %q, want %q", args, code, stderr, stdout, want)
		}
	}
}

func TestInspectFindsContainersFirst(t *testing.T) {
	for args, want := range map[string]string{
		"inspect -f {{.Id}}{{.Name}} web":                         "c0ffee/web\n",
		"inspect --type container -f {{.State.Running}} web":      "true\n",
		"container inspect --format {{.State.Status}} web web2":   "running\nrunning\n",
		"inspect -s -f {{.SizeRw}} web":                           "5\n",
		"inspect --type image -f {{.Name}} web":                   "an image\n",
		"inspect -f {{.Name}} box":                                "an image\n",
		"image inspect -f {{.Name}} web":                          "an image\n",
		"inspect --format json web --type container --size=false": "",
	} {
		f := &fake{object: map[string]string{"Name": "an image"}}
		stdout, stderr, code := typed(t, f, nil, strings.Fields(args)...)
		if want != "" && stdout != want || code != 0 || stdout == "" {
			t.Errorf("%s: exit %d %s, got %q, want %q", args, code, stderr, stdout, want)
		}
	}
	for args, want := range map[string]string{
		"inspect nothing":                  "no such object: nothing: no container, image or volume",
		"inspect --type container nothing": "no such container",
		"container inspect nothing":        "no such container",
		"inspect --type image nothing":     "no such image",
		"inspect --type network web":       `invalid value "network" for --type`,
	} {
		_, stderr, code := typed(t, &fake{}, nil, strings.Fields(args)...)
		if code != 125 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, want 125 and %q", args, code, stderr, want)
		}
	}
}

func TestRenameAndUpdate(t *testing.T) {
	for args, want := range map[string]string{
		"rename web front":                         "web is front",
		"container rename web front":               "web is front",
		"update --restart on-failure:3 web":        "web restarts on-failure 3",
		"container update --restart=always web db": "web restarts always 0, db restarts always 0",
	} {
		f := &fake{}
		_, stderr, code := typed(t, f, nil, strings.Fields(args)...)
		if got := strings.Join(f.changed, ", "); got != want || code != 0 {
			t.Errorf("%s: exit %d %s, asked %q, want %q", args, code, stderr, got, want)
		}
	}
	for args, want := range map[string]string{
		"update web":                     "you must provide one or more flags",
		"update --restart sometimes web": `invalid restart policy: "sometimes"`,
		"update --memory 1g web":         "limits come later",
		"rename web":                     "requires 2 arguments",
	} {
		f := &fake{}
		_, stderr, code := typed(t, f, nil, strings.Fields(args)...)
		if code != 125 || !strings.Contains(stderr, want) || f.changed != nil {
			t.Errorf("%s: exit %d, %q, changed %v; want 125, %q and nothing", args, code, stderr, f.changed, want)
		}
	}
}

func TestContainerPrune(t *testing.T) {
	const done = "Deleted Containers:\nc0ffee\ndecade\n\nTotal reclaimed space: 1.235MB\n"
	f := &fake{}
	stdout, stderr, code := typed(t, f, nil, "container", "prune", "-f", "--filter", "until=1h", "--filter", "label=a=b", "--filter", "label!=c")
	if stdout != done || code != 0 {
		t.Errorf("exit %d %s, got %q, want %q", code, stderr, stdout, done)
	}
	if o := f.pruned; o.Until.Hour() != 11 || !slices.Equal(o.Labels, []string{"a=b"}) || !slices.Equal(o.NotLabels, []string{"c"}) {
		t.Errorf("asked %+v", o)
	}
	f = &fake{}
	stdout, stderr, code = typed(t, f, nil, "container", "prune") // the answer is "standard input"
	if code != 0 || !strings.HasSuffix(stdout, "[y/N] ") || stderr != "" {
		t.Errorf("declined: exit %d, %q, %q, want docker's silence", code, stdout, stderr)
	}
	if _, stderr, code = typed(t, f, nil, "container", "prune", "--filter", "name=a"); code != 125 || !strings.Contains(stderr, "invalid filter") {
		t.Errorf("an unknown filter: exit %d, %q", code, stderr)
	}
}

func TestEventsInDockersForms(t *testing.T) {
	die := events.Container("die", "c0ffee", "web", "busybox", map[string]string{"tier": "front\nline"}, "exitCode", "3")
	die.TimeNano, die.Time, die.Scope = 1_777_637_000_000_000_005, 1_777_637_000, "local"
	tag := events.Image("tag", "sha256:abc", "web:2")
	tag.TimeNano = die.TimeNano
	for args, want := range map[string]string{
		"events": "2026-05-01T12:03:20.000000005Z container die c0ffee (exitCode=3, image=busybox, name=web, tier=front; line)\n" +
			"2026-05-01T12:03:20.000000005Z image tag sha256:abc (name=web:2)\n",
		"system events --format {{.Type}}|{{.Action}}|{{.Status}}|{{.ID}}|{{.From}}|{{.Actor.Attributes.name}}|{{.TimeNano}}": "container|die|die|c0ffee|busybox|web|1777637000000000005\nimage|tag|tag|sha256:abc||web:2|1777637000000000005\n",
		"events --format json": `{"status":"die","id":"c0ffee","from":"busybox","Type":"container","Action":"die","Actor":{"ID":"c0ffee","Attributes":` +
			`{"exitCode":"3","image":"busybox","name":"web","tier":"front\nline"}},"scope":"local","time":1777637000,"timeNano":1777637000000000005}` + "\n" +
			`{"status":"tag","id":"sha256:abc","Type":"image","Action":"tag","Actor":{"ID":"sha256:abc","Attributes":{"name":"web:2"}},"scope":"","time":0,"timeNano":1777637000000000005}` + "\n",
	} {
		f := &fake{fakeShower: fakeShower{events: []events.Event{die, tag}}}
		stdout, stderr, code := typed(t, f, nil, strings.Fields(args)...)
		if stdout != want || code != 0 {
			t.Errorf("%s: exit %d %s, got\n%swant\n%s", args, code, stderr, stdout, want)
		}
	}
	f := &fake{}
	if _, stderr, code := typed(t, f, nil, "events", "--since", "1h", "--until", "2026-05-01T11:30:00", "-f", "event=die"); code != 0 ||
		f.followed.Since.Hour() != 11 || f.followed.Until.Minute() != 30 || f.followed.Filters["event"][0] != "die" {
		t.Errorf("exit %d %s, asked %+v", code, stderr, f.followed)
	}
}
