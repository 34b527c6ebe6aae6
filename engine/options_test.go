package engine

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/images"
	"nook/images/layers"
	"nook/internal/hint"
)

func TestConfigMergesImageAndOptions(t *testing.T) {
	text := func(s string) *string { return &s }
	image := images.ContainerConfig{
		Entrypoint: []string{"/entry", "from"}, Cmd: []string{"the", "image"}, User: "alice", WorkingDir: "/srv",
		Labels: map[string]string{"a": "image", "b": "image"}, StopSignal: "SIGQUIT",
	}
	for name, tc := range map[string]struct {
		o       RunOptions
		command []string
		user    string
		workDir string
	}{
		"the image's":            {RunOptions{}, []string{"/entry", "from", "the", "image"}, "alice", "/srv"},
		"a command":              {RunOptions{Command: []string{"x"}}, []string{"/entry", "from", "x"}, "alice", "/srv"},
		"an entrypoint":          {RunOptions{Entrypoint: text("/other")}, []string{"/other"}, "alice", "/srv"},
		"both":                   {RunOptions{Entrypoint: text("/other"), Command: []string{"x"}}, []string{"/other", "x"}, "alice", "/srv"},
		"no entrypoint":          {RunOptions{Entrypoint: text(""), Command: []string{"x"}}, []string{"x"}, "alice", "/srv"},
		"a user and a directory": {RunOptions{User: "0", WorkDir: "/a/../b/"}, []string{"/entry", "from", "the", "image"}, "0", "/b"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &Engine{root: t.TempDir()}
			tc.o.Labels = map[string]string{"b": "flag"}
			cfg, err := e.config(tc.o, images.Image{}, &images.ImageConfig{Config: image}, layers.Chain{})
			if err != nil {
				t.Fatal(err)
			}
			if got := cfg.Command(); !slices.Equal(got, tc.command) {
				t.Errorf("command %q, want %q", got, tc.command)
			}
			if cfg.User != tc.user || cfg.WorkingDir != tc.workDir || cfg.StopSignal != "SIGQUIT" || cfg.Network != "none" {
				t.Errorf("got %+v", cfg)
			}
			if want := map[string]string{"a": "image", "b": "flag"}; !reflect.DeepEqual(cfg.Labels, want) {
				t.Errorf("labels %v, want %v", cfg.Labels, want)
			}
			if cfg.Hostname != cfg.ID[:12] || containers.ValidName(cfg.Name) != nil {
				t.Errorf("hostname %q, name %q", cfg.Hostname, cfg.Name)
			}
		})
	}
	for name, o := range map[string]RunOptions{
		"a relative directory": {WorkDir: "relative"}, "an unknown network": {Network: "nosuch"},
		"a hostname of 65 bytes": {Hostname: strings.Repeat("a", 65)},
	} {
		if _, err := (&Engine{}).config(o, images.Image{}, &images.ImageConfig{}, layers.Chain{}); hint.Of(err) == "" {
			t.Errorf("%s: %v, want an error with a hint", name, err)
		}
	}
	if _, err := (&Engine{}).config(RunOptions{Hostname: strings.Repeat("a", 64)}, images.Image{}, &images.ImageConfig{}, layers.Chain{}); err != nil {
		t.Errorf("a hostname of 64 bytes: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("FROMCALLER", "caller's")
	for name, tc := range map[string]struct {
		image, user []string
		tty         bool
		want        []string
	}{
		"nothing":       {nil, nil, false, []string{defaultPath, "HOSTNAME=box"}},
		"a terminal":    {nil, nil, true, []string{defaultPath, "HOSTNAME=box", "TERM=xterm"}},
		"the image's":   {[]string{"PATH=/x", "A=1"}, nil, false, []string{"PATH=/x", "HOSTNAME=box", "A=1"}},
		"a flag wins":   {[]string{"A=1", "B=2"}, []string{"A=3=4", "A=5"}, false, []string{defaultPath, "HOSTNAME=box", "A=5", "B=2"}},
		"the caller's":  {nil, []string{"FROMCALLER"}, false, []string{defaultPath, "HOSTNAME=box", "FROMCALLER=caller's"}},
		"unset":         {[]string{"NOT_SET_HERE=1"}, []string{"NOT_SET_HERE"}, false, []string{defaultPath, "HOSTNAME=box"}},
		"empty":         {nil, []string{"A="}, false, []string{defaultPath, "HOSTNAME=box", "A="}},
		"HOSTNAME, too": {nil, []string{"HOSTNAME=x"}, true, []string{defaultPath, "HOSTNAME=x", "TERM=xterm"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := environment(tc.image, tc.user, &containers.Config{Hostname: "box", TTY: tc.tty}); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestTmpfsOptions(t *testing.T) {
	const usual = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for options, want := range map[string]struct {
		flags uintptr
		data  string
	}{
		"":                       {usual, "mode=1777"},
		"size=64m":               {usual, "size=64m,mode=1777"},
		"size=64m,mode=700,exec": {unix.MS_NOSUID | unix.MS_NODEV, "size=64m,mode=700"},
		"size=50%,nr_inodes=1k":  {usual, "size=50%,nr_inodes=1k,mode=1777"},
		"ro,suid,dev":            {unix.MS_NOEXEC | unix.MS_RDONLY, "mode=1777"},
		"ro,rw,,defaults":        {usual, "mode=1777"},
		"uid=1000,gid=50":        {usual, "uid=1000,gid=50,mode=1777"},
	} {
		if flags, data, err := tmpfsOptions(options); err != nil || flags != want.flags || data != want.data {
			t.Errorf("%q: %#x %q, %v; want %#x %q", options, flags, data, err, want.flags, want.data)
		}
	}
	for _, options := range []string{"nosuch", "size", "size=", "mpol=default", "size=1,lowerdir=/x", "context=x",
		"size=lots", "size=k", "size=10x", "size=-1", "size=%", "size=99999999999999999999", "mode=rwx", "mode=17777", "mode=8", "uid=root", "nr_inodes=5%"} {
		if _, _, err := tmpfsOptions(options); hint.Of(err) == "" {
			t.Errorf("%q: %v, want an error with a hint", options, err)
		}
	}
}

func TestApplyChanges(t *testing.T) {
	got, err := applyChanges([]string{
		`CMD ["a", "b c"]`, `entrypoint run it`, `ENV A=1 B="x y"`, `ENV A 2 3`, `LABEL k='v w'`, `EXPOSE 80 53/udp`,
		`VOLUME /data /more`, `USER alice`, `WORKDIR /srv`, `STOPSIGNAL SIGINT`,
	})
	want := images.ContainerConfig{
		Cmd: []string{"a", "b c"}, Entrypoint: []string{"/bin/sh", "-c", "run it"}, Env: []string{"A=2 3", "B=x y"},
		Labels: map[string]string{"k": "v w"}, ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}},
		Volumes: map[string]struct{}{"/data": {}, "/more": {}}, User: "alice", WorkingDir: "/srv", StopSignal: "SIGINT",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for _, change := range []string{"", "RUN x", "FROM x", "CMD", "NOSUCH x"} {
		if _, err := applyChanges([]string{change}); hint.Of(err) == "" {
			t.Errorf("%q: %v, want an error with a hint", change, err)
		}
	}
}

func TestDataRoot(t *testing.T) {
	for name, tc := range map[string]struct{ asked, nook, data, home, want string }{
		"asked":           {"/a", "/n", "/d", "/h", "/a"},
		"NOOK_ROOT":       {"", "/n", "/d", "/h", "/n"},
		"XDG_DATA_HOME":   {"", "", "/d", "/h", "/d/nook"},
		"a relative one":  {"", "", "d", "/h", "/h/.local/share/nook"},
		"HOME":            {"", "", "", "/h", "/h/.local/share/nook"},
		"none of them is": {"", "", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NOOK_ROOT", tc.nook)
			t.Setenv("XDG_DATA_HOME", tc.data)
			t.Setenv("HOME", tc.home)
			got, err := dataRoot(tc.asked)
			if got != tc.want || (tc.want == "") != errors.Is(err, ErrNoHome) {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestRuntimeDir(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if got, _ := RuntimeDir(); got != filepath.Join(dir, "nook") {
		t.Errorf("got %s, want it below XDG_RUNTIME_DIR", got)
	}
	for _, bad := range []string{"", "/no/such/dir", "/proc", filepath.Join(dir, "file")} {
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("XDG_RUNTIME_DIR", bad)
		if got, why := RuntimeDir(); strings.HasPrefix(got, "/proc") || got == filepath.Join(bad, "nook") || !strings.Contains(why, "XDG_RUNTIME_DIR") {
			t.Errorf("%q: %s, because %s", bad, got, why)
		}
	}
}

func TestMakeRuntimeDirRefusesAnothers(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	for range 2 {
		if err := makeRuntimeDir(good); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "open"), 0o700), os.Chmod(filepath.Join(dir, "open"), 0o777),
		os.Symlink("good", filepath.Join(dir, "link")), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "link", "file"} {
		if err := makeRuntimeDir(filepath.Join(dir, name)); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v, want ErrPermission", name, err)
		}
	}
}

// TestHelloIsMadeOnce, and again by another build of this program, so that it
// is the build's that runs.
func TestHelloIsMadeOnce(t *testing.T) {
	e := open(t, "single")
	if _, err := e.makeHello(t.Context(), "another build"); err != nil {
		t.Fatal(err)
	}
	from, err := identity()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.ensureHello(t.Context(), "hello"); err != nil {
			t.Fatal(err)
		}
		now, err := e.images.Resolve(helloName)
		if err != nil || now.Annotations[helloFrom] != from {
			t.Errorf("from %q, %v; want this build, %q", now.Annotations[helloFrom], err, from)
		}
	}
	if list, err := e.Images(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("got %v, %v; want one image", list, err)
	}
	if entries, err := os.ReadDir(filepath.Join(e.root, "layers")); err != nil || len(entries) > 5 {
		t.Errorf("layers pile up: %v, %v", entries, err)
	}
	for _, name := range []string{"busybox", "hello:other", "not a name"} {
		if err := e.ensureHello(t.Context(), name); err != nil {
			t.Errorf("%s: %v, want that it is none of its business", name, err)
		}
	}
}
