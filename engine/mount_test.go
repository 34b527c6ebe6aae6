package engine

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nook/containers"
	"nook/internal/hint"
	"nook/rootfs/volumes"
)

func TestVolumeFlag(t *testing.T) {
	t.Chdir("/usr")
	for v, want := range map[string]containers.Mount{
		"/x":                        {Type: "volume", Anonymous: true, Target: "/x"},
		"/a/../b//":                 {Type: "volume", Anonymous: true, Target: "/b"},
		"db:/x":                     {Type: "volume", Name: "db", Target: "/x"},
		"db:/x:ro,nocopy":           {Type: "volume", Name: "db", Target: "/x", ReadOnly: true, NoCopy: true, Options: "ro,nocopy"},
		"db:/x:U":                   {Type: "volume", Name: "db", Target: "/x", Chown: true, Options: "U"},
		"/a:/x":                     {Type: "bind", Source: "/a", Target: "/x"},
		"/a/b/:/x:":                 {Type: "bind", Source: "/a/b/", Target: "/x"},
		"./a:/x:rw":                 {Type: "bind", Source: "/usr/a", Target: "/x", Options: "rw"},
		"..:/x:rprivate,consistent": {Type: "bind", Source: "/", Target: "/x", Options: "rprivate,consistent"},
		"/:/x:ro,rslave":            {Type: "bind", Source: "/", Target: "/x", ReadOnly: true, Slave: true, Options: "ro,rslave"},
	} {
		got, err := parseVolume(v)
		if err != nil || got.Mount != want || !got.make {
			t.Errorf("%s: %+v, %v; want %+v", v, got.Mount, err, want)
		}
	}
	for _, v := range []string{
		"", "x", ":/x", "/a::ro", "/a:x", "/a:/", "/a:/x/..", "/a:/x:bad", "/a:/x:ro:rw", "/a:/x:ro,rw", "db:/x:nocopy,nocopy",
		"/a:/x:nocopy", "db:/x:rslave", "/a:/x:shared", "/a:/x:rshared", "/a:/x:private,slave", "a/b:/x", "a:/x", "-x:/x", "db:x", "é1:/x",
	} {
		if got, err := parseVolume(v); hint.Of(err) == "" {
			t.Errorf("%s: %+v, %v; want an error with a hint", v, got, err)
		}
	}
}

func TestMountFlag(t *testing.T) {
	t.Chdir("/usr")
	for v, want := range map[string]containers.Mount{
		"dst=/x":                                             {Type: "volume", Anonymous: true, Target: "/x"},
		"type=volume,src=db,target=/x,ro":                    {Type: "volume", Name: "db", Target: "/x", ReadOnly: true},
		"SRC=db,Destination=/x,readonly=false":               {Type: "volume", Name: "db", Target: "/x"},
		"src=db,dst=/x,volume-nocopy,volume-subpath=a/b":     {Type: "volume", Name: "db", Target: "/x", NoCopy: true, Subpath: "a/b"},
		`type=bind,"src=/a,b",dst=/x`:                        {Type: "bind", Source: "/a,b", Target: "/x"},
		"type=bind,src=a,dst=/x,bind-propagation=slave":      {Type: "bind", Source: "/usr/a", Target: "/x", Slave: true},
		"type=bind,src=/a,dst=/x,bind-recursive=disabled":    {Type: "bind", Source: "/a", Target: "/x", NoRecurse: true},
		"bind-recursive=writable,type=bind,src=/a,dst=/x,ro": {Type: "bind", Source: "/a", Target: "/x", WritableBelow: true, ReadOnly: true},
		"type=tmpfs,dst=/x,tmpfs-size=64m,tmpfs-mode=1770":   {Type: "tmpfs", Target: "/x", Options: "size=67108864,mode=1770"},
		"type=tmpfs,dst=/x,ro":                               {Type: "tmpfs", Target: "/x", Options: "ro"},
		"type=bind,src=/a,dst=/x,chown=true":                 {Type: "bind", Source: "/a", Target: "/x", Chown: true},
	} {
		got, err := parseMount(v)
		if err != nil || got.Mount != want || got.make {
			t.Errorf("%s: %+v, %v; want %+v", v, got.Mount, err, want)
		}
	}
	for _, v := range []string{
		"", "type=volume", "type=bind,dst=/x", "src=a/b,dst=/x", "type=image,src=x,dst=/x", "type=npipe,src=x,dst=/x", "dst=x", "dst=/",
		"dst=/x,nosuch=1", "dst=/x,nosuch", "dst=/x,ro=maybe", "type=tmpfs,src=/a,dst=/x", "type=tmpfs,dst=/x,tmpfs-size=much",
		"type=tmpfs,dst=/x,tmpfs-mode=9", "type=bind,src=/a,dst=/x,volume-nocopy", "src=db,dst=/x,tmpfs-size=1",
		"src=db,dst=/x,bind-propagation=rslave", "type=bind,src=/a,dst=/x,bind-propagation=rshared", "type=bind,src=/a,dst=/x,bind-recursive=no",
		"dst=/x,volume-subpath=a", "src=db,dst=/x,volume-driver=nfs", "type=tmpfs,dst=/x,chown",
	} {
		if got, err := parseMount(v); hint.Of(err) == "" {
			t.Errorf("%s: %+v, %v; want an error with a hint", v, got, err)
		}
	}
	got, err := parseMount(`src=db,dst=/x,volume-label=a=b,volume-opt=type=tmpfs,"volume-opt=o=size=1m,mode=700"`)
	options := map[string]string{"type": "tmpfs", "o": "size=1m,mode=700"}
	if err != nil || !maps.Equal(got.options, options) || !maps.Equal(got.labels, map[string]string{"a": "b"}) {
		t.Errorf("labels %v, options %v, %v", got.labels, got.options, err)
	}
}

func TestEachPlaceOnce(t *testing.T) {
	e := &Engine{containers: containers.Open(t.TempDir())}
	for _, o := range []RunOptions{
		{Volumes: []string{"/x", "db:/x/"}},
		{Volumes: []string{"/x"}, Tmpfs: []string{"/x"}},
		{Mounts: []string{"dst=/a/../x"}, Tmpfs: []string{"/x"}},
	} {
		if _, err := e.mounts(o, nil); err == nil || !strings.Contains(err.Error(), "duplicate mount point: /x") {
			t.Errorf("%v: %v", o, err)
		}
	}
}

// TestImageVolumesGiveWay: to whatever is mounted at the same place.
func TestImageVolumesGiveWay(t *testing.T) {
	e := &Engine{containers: containers.Open(t.TempDir())}
	image := map[string]struct{}{"/a/": {}, "/b": {}, "/c": {}}
	list, err := e.mounts(RunOptions{Tmpfs: []string{"/a"}, Volumes: []string{"db:/b"}}, image)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range list {
		got[m.Target] = m.Type + " " + m.Name
		if m.Anonymous {
			got[m.Target] = "anonymous"
			if volumes.ValidName(m.Name) != nil {
				t.Errorf("name %q", m.Name)
			}
		}
	}
	if want := map[string]string{"/a": "tmpfs ", "/b": "volume db", "/c": "anonymous"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, bad := range []string{"relative", "/", "/x/..", "/\x00"} {
		if _, err := e.mounts(RunOptions{}, map[string]struct{}{bad: {}}); err == nil {
			t.Errorf("VOLUME %q: no error", bad)
		}
	}
}

// TestSources: docker's two behaviours, and what is written down.
func TestSources(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(dir+"/file", nil, 0o600), os.Symlink("file", dir+"/link"), os.Symlink("none", dir+"/broken")); err != nil {
		t.Fatal(err)
	}
	e := &Engine{}
	for _, tc := range []struct {
		o      RunOptions
		source string // "": an error
		dir    bool
	}{
		{RunOptions{Volumes: []string{dir + "/link:/x"}}, dir + "/file", false},
		{RunOptions{Volumes: []string{dir + "/new/dir:/x"}}, dir + "/new/dir", true},
		{RunOptions{Volumes: []string{dir + "/file/:/x"}}, "", false},
		{RunOptions{Volumes: []string{dir + "/file/x:/x"}}, "", false},
		{RunOptions{Volumes: []string{dir + "/broken:/x"}}, "", false},
		{RunOptions{Mounts: []string{"type=bind,dst=/x,src=" + dir + "/link"}}, dir + "/file", false},
		{RunOptions{Mounts: []string{"type=bind,dst=/x,src=" + dir + "/none"}}, "", false},
		{RunOptions{Mounts: []string{"type=bind,bind-create-src,dst=/x,src=" + dir + "/made"}}, dir + "/made", true},
	} {
		list, err := e.mounts(tc.o, nil)
		if tc.source == "" {
			if err == nil {
				t.Errorf("%v: no error", tc.o)
			}
			continue
		}
		if err != nil || list[0].Source != tc.source || list[0].Dir != tc.dir {
			t.Errorf("%v: %+v, %v; want %s", tc.o, list, err, tc.source)
		}
	}
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("--mount made its source")
	}
	if _, err := e.mounts(RunOptions{Volumes: []string{dir + "/never:/x:bad"}}, nil); err == nil {
		t.Error("a bad mode: no error")
	}
	if _, err := os.Stat(dir + "/never"); err == nil {
		t.Error("the source of a refused bind was made")
	}
}

func TestSilentFileSystemIsGivenUp(t *testing.T) {
	wait := make(chan struct{})
	defer close(wait)
	if err := patientlyFor(0, func() error { <-wait; return nil }); !errors.Is(err, errSilent) {
		t.Errorf("got %v, want errSilent", err)
	}
	if err := patiently(func() error { return os.ErrExist }); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v, want its error", err)
	}
}

// TestErrorsOfDeadFileSystemsHaveAHint: those of NFS, 9p and FUSE can't be had
// here, but for the last.
func TestErrorsOfDeadFileSystemsHaveAHint(t *testing.T) {
	for _, tc := range []struct {
		errno  unix.Errno
		advice string
	}{
		{unix.ESTALE, "mount it again"},
		{unix.EHOSTDOWN, "mount it again"},
		{unix.ETIMEDOUT, "mount it again"},
		{unix.ENOTCONN, "mount it again"},
		{unix.EIO, "dmesg"},
		{unix.EACCES, ""},
	} {
		err := patiently(func() error { return &fs.PathError{Op: "lstat", Path: "/mnt", Err: tc.errno} })
		if got := hint.Of(err); !errors.Is(err, tc.errno) || !strings.Contains(got, tc.advice) || tc.advice == "" && got != "" {
			t.Errorf("%v: %v, hint %q; want %q in it", tc.errno, err, got, tc.advice)
		}
	}
}

func TestMayHave(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.WriteFile(dir+"/file", nil, 0o600), os.Symlink("/nowhere", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]bool{
		"/a": true, "/a/b": true, "/a/c": false, "/c/b": false, "/file/x": false, "/link/x": true, "/file": true,
	} {
		if got := mayHave(dir, target); got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}

func TestVolumeOptions(t *testing.T) {
	for _, tc := range []struct {
		options map[string]string
		ok      bool
	}{
		{nil, true},
		{map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"}, true},
		{map[string]string{"type": "none", "device": "/srv", "o": "bind"}, true},
		{map[string]string{"type": "none", "device": "/srv", "o": "rbind,ro"}, true},
		{map[string]string{"type": "none", "device": "/srv"}, false},
		{map[string]string{"type": "none", "device": "srv", "o": "bind"}, false},
		{map[string]string{"type": "none", "device": "/srv", "o": "bind,nosuch"}, false},
		{map[string]string{"type": "tmpfs", "o": "nosuch=1"}, false},
		{map[string]string{"type": "nfs", "device": ":/x", "o": "addr=1.2.3.4"}, false},
		{map[string]string{"device": "/srv", "o": "bind"}, false},
		{map[string]string{"size": "1m"}, false},
		{map[string]string{"nosuch": ""}, false},
	} {
		err := checkVolumeOptions(volumes.Volume{Name: "v1", Options: tc.options})
		if (err == nil) != tc.ok || err != nil && hint.Of(err) == "" {
			t.Errorf("%v: %v (hint %q), want ok %v", tc.options, err, hint.Of(err), tc.ok)
		}
	}
}

func TestSecretTarget(t *testing.T) {
	for target, want := range map[string]string{
		"": "/run/secrets/id", "x": "/run/secrets/x", "./x": "/run/secrets/x", "/run/secrets/x": "/run/secrets/x", "/run/./secrets//x": "/run/secrets/x",
		"/etc/app/key": "/etc/app/key", "/x": "/x", "../x": "/run/x", "/procs": "/procs", "/dev/key": "/dev/key",
		"/": "", "/x/": "", "/run": "", "/run/": "", "/run/secrets": "", "..": "", ".": "", "a/b": "", "/run/secrets/a/b": "", "/run/secrets/-x": "", "a b": "",
		"/proc": "", "/proc/1/x": "", "/sys/x": "", "/x/../proc/x": "", "/a\x00b": "",
	} {
		got, err := secretTarget(Secret{ID: "id", Target: target})
		if got != want || (err == nil) != (want != "") || err != nil && hint.Of(err) == "" {
			t.Errorf("%q: %q, %v (hint %q); want %q", target, got, err, hint.Of(err), want)
		}
	}
}
