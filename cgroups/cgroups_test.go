package cgroups

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMemberships(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want map[string]string
	}{
		"v2":     {"0::/user.slice/x.scope\n", map[string]string{"": "/user.slice/x.scope"}},
		"hybrid": {"2:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c\n", map[string]string{"cpu,cpuacct": "/a", "name=systemd": "/b", "": "/c"}},
		"colons": {"0::/a:b:c\n", map[string]string{"": "/a:b:c"}},
		"broken": {"\nx\n0:\n", map[string]string{}},
	} {
		file := filepath.Join(t.TempDir(), "cgroup")
		if err := os.WriteFile(file, []byte(tc.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := memberships(file); !maps.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	if got := memberships("/no/such/file"); len(got) != 0 {
		t.Errorf("without a file: %v", got)
	}
}

// TestUnified decides over a directory that plays a group of cgroup2.
func TestUnified(t *testing.T) {
	dir := t.TempDir()
	d := Detection{}
	d.unified(dir)
	if d.Delegated || d.Why == "" {
		t.Errorf("without cgroup.procs: %+v, want it not to be ours", d)
	}
	for name, text := range map[string]string{"cgroup.procs": "", "cgroup.controllers": "cpu memory pids\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d = Detection{}
	d.unified(dir)
	if !d.Delegated || !slices.Equal(d.Controllers, []string{"cpu", "memory", "pids"}) || d.Why == "" {
		t.Errorf("got %+v, want it delegated with three controllers", d)
	}
}

func TestLegacy(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"cpu,cpuacct/ours", "memory"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d := Detection{}
	d.legacy(root, map[string]string{"cpu,cpuacct": "/ours", "memory": "/not/there", "name=systemd": "/", "": "/"})
	if !d.Delegated || !slices.Equal(d.Controllers, []string{"cpu", "cpuacct"}) {
		t.Errorf("got %+v, want cpu and cpuacct", d)
	}
	d = Detection{}
	d.legacy(root, nil)
	if d.Delegated || d.Why == "" {
		t.Errorf("without groups: %+v", d)
	}
}

func TestHierarchyOfWhatIsNone(t *testing.T) {
	for _, dir := range []string{"/no/such/dir", "/proc"} {
		if got := hierarchy(dir); got != None {
			t.Errorf("%s: %s, want none", dir, got)
		}
	}
	if d := detect("/no/such/dir", "/proc/self/cgroup"); d.Hierarchy != None || d.Why == "" || d.Delegated {
		t.Errorf("got %+v", d)
	}
}

// TestDetectAgreesWithItself on whatever host this is.
func TestDetectAgreesWithItself(t *testing.T) {
	d := Detect()
	if d.Hierarchy != Hierarchy() || d.Why == "" || d.Delegated && d.ReadOnly && d.Hierarchy == Unified {
		t.Errorf("got %+v, Hierarchy() %s", d, Hierarchy())
	}
}
