package rootfs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOwn(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"low/etc", "low/srv/in", "low/data", "linked/srv", "upper", "up/srv"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"linked/srv/in": "../etc", "up/etc": "data", "linked/link": "/etc"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) Dir { return Dir{Path: filepath.Join(dir, name)} }
	low, upper := []Dir{at("low")}, at("upper")
	bind := func(target string) []Bind { return []Bind{{Target: target}} }
	for name, tc := range map[string]struct {
		root Root
		want bool
	}{
		"nothing mounted":            {Root{Lowers: low, Upper: at("up")}, true},
		"elsewhere":                  {Root{Lowers: low, Upper: upper, Binds: bind("/srv/in/it")}, true},
		"a place that is missing":    {Root{Lowers: low, Upper: upper, Tmpfs: []Tmpfs{{Target: "/new/place"}}}, true},
		"in memory":                  {Root{Lowers: low, Binds: bind("/srv")}, true},
		"beside it":                  {Root{Lowers: low, Upper: upper, Binds: bind("/etc/passwd-")}, true},
		"on it":                      {Root{Lowers: low, Upper: upper, Binds: bind("/etc/passwd")}, false},
		"above it":                   {Root{Lowers: low, Upper: upper, Tmpfs: []Tmpfs{{Target: "/etc"}}}, false},
		"by a link to its directory": {Root{Lowers: append([]Dir{at("linked")}, low...), Upper: upper, Binds: bind("/srv/in")}, false},
		"below such a link":          {Root{Lowers: append([]Dir{at("linked")}, low...), Upper: upper, Binds: bind("/link/x")}, false},
		"itself by a link":           {Root{Lowers: low, Upper: at("up"), Binds: bind("/srv")}, false},
		"a copy with a link":         {Root{Kind: Copy, Dir: filepath.Join(dir, "up"), Binds: bind("/srv")}, false},
		"too many layers":            {Root{Lowers: make([]Dir, 400), Upper: upper, Binds: bind("/srv")}, false},
		"secrets":                    {Root{Lowers: low, Upper: upper, Secrets: []Secret{{}}}, true},
		"a secret on it":             {Root{Lowers: low, Upper: upper, Secrets: []Secret{{Target: "/etc/passwd"}}}, false},
	} {
		if got := tc.root.Own("/etc/passwd", "/etc/group"); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
