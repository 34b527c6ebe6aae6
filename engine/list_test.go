package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nook/containers"
	"nook/containers/events"
	"nook/images"
	"nook/internal/atomicfile"
)

// records gives an engine over a data root of records alone, and what it notes.
func records(t *testing.T) (e *Engine, notes *[]string) {
	t.Helper()
	root := t.TempDir()
	notes = &[]string{}
	note := func(text string) { *notes = append(*notes, text) }
	store, err := images.Open(filepath.Join(root, "images"))
	if err != nil {
		t.Fatal(err)
	}
	return &Engine{root: root, opts: Options{Note: note}, images: store, containers: containers.Open(containersDir(root))}, notes
}

var day = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

// add makes a container of that hour of the day, whom nobody holds.
func add(t *testing.T, e *Engine, name string, hour int, s containers.State, change func(*containers.Config)) containers.Container {
	t.Helper()
	cfg := &containers.Config{
		ID: containers.NewID(), Name: name, Created: day.Add(time.Duration(hour) * time.Hour),
		Image: "busybox", Network: "none", Entrypoint: []string{"sh"}, Cmd: []string{"-c", name},
	}
	if change != nil {
		change(cfg)
	}
	ct, lock, err := e.containers.Create(cfg, containers.Attr{Mode: 0o755})
	if err != nil {
		t.Fatal(err)
	}
	lock.Release()
	if s.Status != "" {
		if err := ct.WriteState(s, atomicfile.Volatile); err != nil {
			t.Fatal(err)
		}
	}
	return ct
}

func listed(t *testing.T, e *Engine, o ListOptions) string {
	t.Helper()
	list, err := e.List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

func TestListFiltersAsDocker(t *testing.T) {
	e, notes := records(t)
	self, err := containers.Self()
	if err != nil {
		t.Fatal(err)
	}
	running := containers.State{Status: containers.Running, Monitor: self}
	healthy := running
	healthy.Health = &containers.Health{Status: "healthy"}
	web := add(t, e, "web", 1, running, func(c *containers.Config) {
		c.Labels = map[string]string{"tier": "front", "x": ""}
		c.Mounts = []containers.Mount{{Type: "bind", Source: "/srv", Target: "/www"}}
	})
	add(t, e, "web-old", 2, containers.State{Status: containers.Exited, ExitCode: 3}, func(c *containers.Config) {
		c.Labels = map[string]string{"tier": "back"}
		c.Network = "host"
	})
	add(t, e, "db", 3, healthy, nil)
	add(t, e, "new", 4, containers.State{}, nil)
	add(t, e, "rests", 5, containers.State{Status: containers.Paused, Monitor: self}, nil)
	for _, test := range []struct {
		options ListOptions
		filters string
		want    string
	}{
		{ListOptions{}, "", "rests db web"},
		{ListOptions{All: true}, "", "rests new db web-old web"},
		{ListOptions{Last: 2}, "", "rests new"},
		{ListOptions{Last: 2}, "name=web", "web-old web"},
		{ListOptions{All: true}, "name=web", "web-old web"},
		{ListOptions{}, "name=^web$", "web"},
		{ListOptions{}, "name=^/web$", "web"},
		{ListOptions{All: true}, "name=web name=db", "db web-old web"},
		{ListOptions{All: true}, "name=[", ""},
		{ListOptions{All: true}, "id=" + web.ID[:12], "web"},
		{ListOptions{All: true}, "label=tier", "web-old web"},
		{ListOptions{All: true}, "label=tier=front", "web"},
		{ListOptions{All: true}, "label=tier label=x", "web"},
		{ListOptions{All: true}, "label=tier label=y", ""},
		{ListOptions{}, "status=exited", "web-old"},
		{ListOptions{}, "status=created status=paused", "rests new"},
		{ListOptions{}, "exited=3", "web-old"},
		{ListOptions{}, "exited=0", ""},
		{ListOptions{}, "health=healthy", "db"},
		{ListOptions{}, "health=none", "rests web"},
		{ListOptions{All: true}, "before=db", "web-old web"},
		{ListOptions{All: true}, "since=db", "rests new"},
		{ListOptions{All: true}, "since=web before=new", "db web-old"},
		{ListOptions{All: true}, "network=host", "web-old"},
		{ListOptions{}, "volume=/srv", "web"},
		{ListOptions{}, "volume=/www", "web"},
		{ListOptions{}, "volume=/w", ""},
	} {
		test.options.Filters, err = ParseFilters(strings.Fields(test.filters))
		if err != nil {
			t.Fatal(err)
		}
		if got := listed(t, e, test.options); got != test.want {
			t.Errorf("%+v: %q, want %q", test.options, got, test.want)
		}
	}
	if len(*notes) > 0 {
		t.Errorf("notes: %q", *notes)
	}
	for filter, want := range map[string]string{
		"status=gone": "filter status=gone", "exited=x": "filter exited=x", "health=ill": "filter health=ill",
		"publish=80": "not there yet", "expose=80": "not there yet", "color=red": `filter "color"`, "before=nobody": "no such container",
	} {
		filters, err := ParseFilters([]string{filter})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = e.List(t.Context(), ListOptions{Filters: filters}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", filter, err, want)
		}
	}
}

// TestListSurvivesBadRecords: of a newer nook, broken, vanishing.
func TestListSurvivesBadRecords(t *testing.T) {
	e, notes := records(t)
	write := func(ct containers.Container, file, text string) {
		if err := os.WriteFile(filepath.Join(ct.Path, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add(t, e, "good", 1, containers.State{}, nil)
	broken := add(t, e, "broken", 2, containers.State{}, nil)
	newer := add(t, e, "newer", 3, containers.State{}, nil)
	state := add(t, e, "state", 4, containers.State{}, nil)
	other := add(t, e, "other", 5, containers.State{}, nil)
	vanished := add(t, e, "vanished", 6, containers.State{}, nil)
	write(broken, "config.json", "[]") // one cut short is swept: CutShort
	write(newer, "config.json", `{"version":99,"id":"`+newer.ID+`"}`)
	write(state, "state.json", `{"version":99}`)
	write(other, "config.json", `{"version":1,"id":"`+newer.ID+`"}`)
	if err := os.Remove(filepath.Join(vanished.Path, "config.json")); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, e, ListOptions{All: true}); got != "good" {
		t.Errorf("listed %q, want good", got)
	}
	for _, ct := range []containers.Container{broken, newer, state, other} {
		if n := len(slices.DeleteFunc(slices.Clone(*notes), func(s string) bool { return !strings.Contains(s, ct.ID[:12]) })); n == 0 {
			t.Errorf("nothing is noted of %.12s: %q", ct.ID, *notes)
		}
	}
	if len(*notes) != 4 {
		t.Errorf("%d notes, want 4: %q", len(*notes), *notes)
	}
}

func TestListOfLongRecord(t *testing.T) {
	e, _ := records(t)
	long := strings.Repeat("x", 100<<10)
	add(t, e, "long", 1, containers.State{}, func(c *containers.Config) { c.Env = []string{"A=" + long}; c.Labels = map[string]string{"l": long} })
	list, err := e.List(t.Context(), ListOptions{All: true})
	if err != nil || len(list) != 1 || list[0].Labels["l"] != long {
		t.Errorf("%d listed, %v", len(list), err)
	}
}

// TestStaleStatesAreSettled: what a killed monitor or a reboot left is told as
// an end, and written down unless somebody is at work on the container.
func TestStaleStatesAreSettled(t *testing.T) {
	self, err := containers.Self()
	if err != nil {
		t.Fatal(err)
	}
	killed, reboot := self, self
	killed.StartTime++
	reboot.Boot = "00000000-0000-0000-0000-000000000000"
	for name, test := range map[string]struct {
		monitor containers.Process
		held    bool
		fact    string
	}{
		"killed": {killed, false, "its monitor was killed"},
		"reboot": {reboot, false, "the machine was restarted meanwhile"},
		"held":   {killed, true, "its monitor was killed"},
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := records(t)
			began := time.Now().Add(-time.Minute)
			ct := add(t, e, "web", 1, containers.State{Status: containers.Running, Pid: 5, Monitor: test.monitor, Started: began}, nil)
			if test.held {
				lock, err := ct.TryLock()
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Release()
			}
			list, err := e.List(t.Context(), ListOptions{All: true})
			if err != nil || len(list) != 1 {
				t.Fatalf("%d listed, %v", len(list), err)
			}
			for _, s := range []containers.State{list[0].State, e.settleStale(ct)} {
				if s.Status != containers.Exited || s.ExitCode != 137 || s.Pid != 0 || s.Error != test.fact || s.Lost != test.held || !s.Finished.After(began) {
					t.Errorf("it is told as %+v", s)
				}
			}
			fact := test.fact
			if test.held {
				fact = ""
			}
			if again, err := ct.State(); err != nil || again.Lost != test.held || again.Error != fact {
				t.Errorf("it is written as %+v, %v", again, err)
			}
		})
	}
}

func TestParseRestartPolicy(t *testing.T) {
	for text, want := range map[string]containers.RestartPolicy{
		"": {Name: "no"}, "no": {Name: "no"}, "always": {Name: "always"}, "unless-stopped": {Name: "unless-stopped"},
		"on-failure": {Name: "on-failure"}, "on-failure:3": {Name: "on-failure", Retries: 3},
	} {
		if got, err := ParseRestartPolicy(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"sometimes", "always:3", "no:1", "on-failure:", "on-failure:x", "on-failure:-1", ":1"} {
		if got, err := ParseRestartPolicy(text); err == nil {
			t.Errorf("%q is taken as %+v", text, got)
		}
	}
}

func TestRenameAndUpdate(t *testing.T) {
	e, _ := records(t)
	add(t, e, "web", 1, containers.State{}, nil)
	add(t, e, "db", 2, containers.State{}, func(c *containers.Config) { c.Remove = true; c.Created = day.Add(2 * time.Hour) })
	if err := e.Rename(t.Context(), "web", "/front"); err != nil {
		t.Fatal(err)
	}
	always := containers.RestartPolicy{Name: "always"}
	if err := e.Update(t.Context(), "front", UpdateOptions{Restart: &always}); err != nil {
		t.Fatal(err)
	}
	ct, err := e.containers.Find("front")
	if err != nil {
		t.Fatal(err)
	}
	if cfg, err := ct.Config(); err != nil || cfg.Name != "front" || cfg.Restart != always {
		t.Errorf("%+v, %v", cfg, err)
	}
	for what, err := range map[string]error{
		"container name is in use": e.Rename(t.Context(), "front", "db"),
		"it is called so already":  e.Rename(t.Context(), "front", "front"),
		"invalid container name":   e.Rename(t.Context(), "front", "a b"),
		"no such container":        e.Rename(t.Context(), "web", "web2"),
		"it has --rm":              e.Update(t.Context(), "db", UpdateOptions{Restart: &always}),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want %q", err, what)
		}
	}
	var seen []string
	err = e.Events(t.Context(), EventsOptions{Since: day, Until: time.Now()}, func(ev events.Event) error {
		seen = append(seen, ev.Action+" "+ev.Actor.Attributes["name"]+ev.Actor.Attributes["oldName"])
		return nil
	})
	if want := []string{"rename front/web", "update front"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("events %q, %v, want %q", seen, err, want)
	}
}

func TestEventFilters(t *testing.T) {
	labels := map[string]string{"tier": "front"}
	die := events.Container("die", "c0ffee00", "web", "team/box:2", labels, "exitCode", "0")
	probe := events.Container("exec_start: sh -c true", "c0ffee00", "web", "busybox", nil)
	tag := events.Image("tag", "sha256:abc", "busybox:2")
	for filters, want := range map[string]string{
		"":                             "die probe tag",
		"type=image":                   "tag",
		"type=image type=container":    "die probe tag",
		"event=die":                    "die",
		"event=exec_start":             "probe",
		"event=exec_start: sh -c true": "probe",
		"container=web":                "die probe",
		"container=c0ff":               "die probe",
		"container=we":                 "",
		"image=team/box":               "die",
		"image=team/box:2":             "die",
		"image=docker.io/team/box:2":   "die",
		"image=busybox":                "probe tag",
		"image=sha256:abc":             "tag",
		"label=tier":                   "die",
		"label=tier=back":              "",
		"container=web scope=swarm":    "",
	} {
		parsed := map[string][]string{}
		for _, f := range strings.Split(filters, " ") {
			if strings.HasPrefix(filters, "event=exec_start: ") {
				f = filters
			}
			if key, value, _ := strings.Cut(f, "="); key != "" && !slices.Contains(parsed[key], value) {
				parsed[key] = append(parsed[key], value)
			}
		}
		var got []string
		for name, ev := range map[string]events.Event{"die": die, "probe": probe, "tag": tag} {
			if eventMatches(ev, parsed) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s: %q, want %q", filters, text, want)
		}
	}
	e, _ := records(t)
	if err := e.Events(t.Context(), EventsOptions{Filters: map[string][]string{"color": {"red"}}}, nil); err == nil {
		t.Error("an unknown filter is taken")
	}
}
