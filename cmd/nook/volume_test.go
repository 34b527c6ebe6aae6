package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"nook/engine"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

// fakeStorekeeper remembers what it was asked about volumes.
type fakeStorekeeper struct {
	created       engine.VolumeOptions
	prunedVolumes []engine.PruneVolumesOptions
	listedVolumes engine.VolumeFilter
	volumes       []engine.VolumeInfo
	damage        error
}

func (f *fakeStorekeeper) CreateVolume(_ context.Context, o engine.VolumeOptions) (volumes.Volume, error) {
	f.created = o
	return volumes.Volume{Name: o.Name}, nil
}

func (f *fakeStorekeeper) Volumes(_ context.Context, filter engine.VolumeFilter) ([]engine.VolumeInfo, error) {
	f.listedVolumes = filter
	return f.volumes, f.damage
}

func (f *fakeStorekeeper) InspectVolume(_ context.Context, name string) (*engine.VolumeInspection, error) {
	for _, v := range f.volumes {
		if v.Name == name {
			return &engine.VolumeInspection{Name: name, Driver: "local", Scope: "local"}, nil
		}
	}
	return nil, fmt.Errorf("get %s: %w", name, volumes.ErrNotFound)
}

func (f *fakeStorekeeper) RemoveVolume(_ context.Context, name string, _ engine.RemoveVolumeOptions) error {
	if name == "used" {
		return fmt.Errorf("remove used: %w - [c1]", volumes.ErrInUse)
	}
	return nil
}

func (f *fakeStorekeeper) PrunableVolumes(_ context.Context, _ engine.PruneVolumesOptions) (engine.PrunedVolumes, error) {
	return engine.PrunedVolumes{Names: []string{"a1", "b2"}, Bytes: 1500}, nil
}

func (f *fakeStorekeeper) PruneVolumes(_ context.Context, o engine.PruneVolumesOptions) (engine.PrunedVolumes, error) {
	f.prunedVolumes = append(f.prunedVolumes, o)
	return engine.PrunedVolumes{Names: []string{"a1"}, Bytes: 1000}, nil
}

func keptVolumes() []engine.VolumeInfo {
	return []engine.VolumeInfo{
		{Volume: volumes.Volume{Name: "db", Driver: "local", Labels: map[string]string{"b": "2", "a": "1"}}, Mountpoint: "/v/db"},
		{Volume: volumes.Volume{Name: "web", Driver: "local"}, Mountpoint: "/v/web"},
	}
}

func TestVolumeList(t *testing.T) {
	const unknown = `"Availability":"N/A","Group":"N/A","Links":"N/A","Size":"N/A","Status":"N/A"}`
	for args, want := range map[string]string{
		"ls":    "DRIVER    VOLUME NAME\nlocal     db\nlocal     web\n",
		"ls -q": "db\nweb\n",
		"list --format {{.Name}}={{.Labels}}={{\"a\"|.Label}}": "db=a=1,b=2=1\nweb==\n",
		"ls --format json": `{"Driver":"local","Labels":"a=1,b=2","Mountpoint":"/v/db","Name":"db","Scope":"local",` + unknown + "\n" +
			`{"Driver":"local","Labels":"","Mountpoint":"/v/web","Name":"web","Scope":"local",` + unknown + "\n",
		"ls --format {{.Name}}:{{.Links}}:{{.Status}}": "db:N/A:N/A\nweb:N/A:N/A\n",
	} {
		f := &fake{}
		f.volumes = keptVolumes()
		stdout, stderr, code := typed(t, f, nil, append([]string{"volume"}, strings.Fields(args)...)...)
		if stdout != want || code != 0 {
			t.Errorf("%s: exit %d %s, got\n%swant\n%s", args, code, stderr, stdout, want)
		}
	}
	f := &fake{}
	f.volumes, f.damage = keptVolumes(), errors.New("volume x: damaged")
	stdout, stderr, code := typed(t, f, nil, "volume", "ls", "-f", "dangling=true", "--filter", "name=d")
	if code != hint.ExitNook || !strings.Contains(stderr, "volume x: damaged") || !strings.Contains(stdout, "db\n") {
		t.Errorf("a damaged one: exit %d %q, got\n%s", code, stderr, stdout)
	}
	if f.listedVolumes.Dangling == nil || !*f.listedVolumes.Dangling || len(f.listedVolumes.Names) != 1 {
		t.Errorf("asked for %+v", f.listedVolumes)
	}
}

func TestVolumeVerbs(t *testing.T) {
	f := &fake{}
	f.volumes = keptVolumes()
	stdout, stderr, code := typed(t, f, nil, "volume", "create", "-o", "type=tmpfs", "--opt", "o=size=1m,mode=700", "--label", "a=b", "db")
	if code != 0 || stdout != "db\n" || f.created.Options["o"] != "size=1m,mode=700" || f.created.Options["type"] != "tmpfs" || f.created.Labels["a"] != "b" {
		t.Errorf("create: exit %d %s, asked %+v, said %q", code, stderr, f.created, stdout)
	}
	for _, tc := range []struct{ args, stdout, stderr string }{
		{"volume create -o nonsense db", "", "--opt \"nonsense\""},
		{"volume ls -f nosuch=1", "", "filter \"nosuch\""},
		{"volume ls -f dangling=maybe", "", "filter dangling=maybe"},
		{"volume inspect -f {{.Driver}} web nosuch db", "local\nlocal\n", "get nosuch: no such volume"},
		{"inspect --type volume -f {{.Name}} db", "db\n", ""},
		{"volume rm db used web", "db\nweb\n", "remove used: volume is in use - [c1]"},
		{"volume prune --filter nosuch=1", "", "filter \"nosuch\""},
	} {
		stdout, stderr, _ := typed(t, f, nil, strings.Fields(tc.args)...)
		if stdout != tc.stdout || !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
			t.Errorf("%s: got %q, %q; want %q, %q", tc.args, stdout, stderr, tc.stdout, tc.stderr)
		}
	}
}

func TestVolumePrune(t *testing.T) {
	const done = "Deleted Volumes:\na1\n\nTotal reclaimed space: 1kB\n"
	for args, all := range map[string]bool{"-f": false, "-af": true, "-f --filter all=1": true} {
		f := &fake{}
		stdout, stderr, code := typed(t, f, nil, append([]string{"volume", "prune"}, strings.Fields(args)...)...)
		if code != 0 || stdout != done || len(f.prunedVolumes) != 1 || f.prunedVolumes[0].All != all {
			t.Errorf("%s: exit %d %s, asked %+v, said\n%s", args, code, stderr, f.prunedVolumes, stdout)
		}
	}
	f := &fake{} // the answer is "standard input"
	stdout, _, code := typed(t, f, nil, "volume", "prune")
	if code != 0 || len(f.prunedVolumes) != 0 || !strings.Contains(stdout, "anonymous local volumes not used by at least one container: 2, with 1.5kB.") {
		t.Errorf("declined: exit %d, %q, asked %+v", code, stdout, f.prunedVolumes)
	}
}
