package images

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// peer runs a program of other hands and returns what it printed.
func peer(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	// Their storage and locks stay in the test's own directory.
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_RUNTIME_DIR="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Logf("%s", exit.Stderr)
		}
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	return peer(t, "skopeo", append([]string{"--insecure-policy"}, args...)...)
}

func TestSkopeoReadsTheStore(t *testing.T) {
	testenv.Need(t, "skopeo", testenv.Skopeo)
	s := newStore(t)
	load(t, s, bundleOf(t, small().WriteDocker).tar())
	img := small()
	img.Name, img.Compression = "quay.io/x/y:2", testimage.Gzip
	loadImage(t, s, img)
	for _, name := range []string{"docker.io/library/small:1", "quay.io/x/y:2"} {
		resolved, err := s.Resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		var inspected struct {
			Digest string
			Layers []string
			Env    []string
		}
		if err := json.Unmarshal([]byte(skopeo(t, "inspect", "oci:"+s.dir+":"+name)), &inspected); err != nil {
			t.Fatal(err)
		}
		if inspected.Digest != resolved.Manifest.Digest || len(inspected.Layers) != 2 || !slices.Equal(inspected.Env, []string{"A=1"}) {
			t.Errorf("skopeo sees %+v, want %+v", inspected, resolved)
		}
		// Copying reads every blob and holds it to its digest.
		skopeo(t, "copy", "oci:"+s.dir+":"+name, "dir:"+t.TempDir())
	}
}

func TestUmociReadsTheStore(t *testing.T) {
	testenv.Need(t, "umoci", testenv.Umoci)
	s := newStore(t)
	load(t, s, bundleOf(t, small().WriteDocker).tar())
	if got := peer(t, "umoci", "ls", "--layout", s.dir); got != "docker.io/library/small:1\n" {
		t.Errorf("umoci lists %q", got)
	}
	var stat struct {
		History []struct {
			Layer *struct{ Digest string } `json:"layer"`
		} `json:"history"`
	}
	text := peer(t, "umoci", "stat", "--json", "--image", s.dir+":docker.io/library/small:1")
	if err := json.Unmarshal([]byte(text), &stat); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bundle")
	peer(t, "umoci", "unpack", "--rootless", "--image", s.dir+":docker.io/library/small:1", dir)
	if _, err := os.Stat(filepath.Join(dir, "rootfs", "etc", "motd")); !os.IsNotExist(err) {
		t.Errorf("the file under the whiteout: %v", err)
	}
	// It may remove what nothing refers to; all of ours is referred to.
	before := files(t, s)
	peer(t, "umoci", "gc", "--layout", s.dir)
	if after := files(t, s); !slices.Equal(after, before) {
		t.Errorf("umoci gc left %q of %q", after, before)
	}
}

// What skopeo writes in each of its forms is read here.
func TestLoadReadsWhatSkopeoWrites(t *testing.T) {
	testenv.Need(t, "skopeo", testenv.Skopeo)
	layout := filepath.Join(t.TempDir(), "layout")
	if err := small().WriteOCIDir(layout); err != nil {
		t.Fatal(err)
	}
	src := "oci:" + layout + ":small:1"
	for _, test := range []struct {
		name, transport, ref, file string
		options                    []string
		want                       []string
	}{
		{"docker", "docker-archive", "x/y:2", "d.tar", nil, []string{"docker.io/x/y:2"}},
		{"oci archive with a bare tag", "oci-archive", "3", "boxes.tar", nil, []string{"docker.io/library/boxes:3"}},
		{"oci archive", "oci-archive", "localhost/z:4", "o.tar", nil, []string{"localhost/z:4"}},
		{"directory", "oci", "latest", "dir", nil, []string{"docker.io/library/dir:latest"}},
		{"zstd", "oci", "x:5", "dir", []string{"--dest-compress-format", "zstd", "--dest-compress"}, []string{"docker.io/library/x:5"}},
		{"gzip", "oci", "x:5", "dir", []string{"--dest-compress-format", "gzip", "--dest-compress"}, []string{"docker.io/library/x:5"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), test.file)
			args := append([]string{"copy"}, test.options...)
			skopeo(t, append(args, src, test.transport+":"+path+":"+test.ref)...)
			s := newStore(t)
			loaded, err := s.Load(t.Context(), LoadOptions{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if len(loaded) != 1 || !slices.Equal(loaded[0].Names, test.want) {
				t.Errorf("got %+v, want %q", loaded, test.want)
			}
			if layers, err := s.Layers(loaded[0]); err != nil || len(layers) != 2 {
				t.Errorf("got %+v, %v, want two layers", layers, err)
			} else if len(test.options) > 0 && !strings.HasSuffix(layers[0].MediaType, "+"+test.name) {
				t.Errorf("got layers of %s, want %s", layers[0].MediaType, test.name)
			}
		})
	}
}

// Other programs may write into the layout; their entries have no cache.
func TestListReadsWhatSkopeoPutThere(t *testing.T) {
	testenv.Need(t, "skopeo", testenv.Skopeo)
	layout := filepath.Join(t.TempDir(), "layout")
	if err := small().WriteOCIDir(layout); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	skopeo(t, "copy", "oci:"+layout+":small:1", "oci:"+s.dir+":theirs:1")
	img, err := s.Resolve("theirs:1")
	if err != nil {
		t.Fatal(err)
	}
	if img.ID == "" || img.Size == 0 || !slices.Equal(img.Names, []string{"docker.io/library/theirs:1"}) {
		t.Errorf("got %+v", img)
	}
	if err := s.Tag(t.Context(), "theirs:1", "ours"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), "theirs:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s); len(got) != 1 || !slices.Equal(got[0].Names, []string{"docker.io/library/ours:latest"}) {
		t.Errorf("got %+v, want the name ours alone", got)
	}
	if _, err := s.Remove(t.Context(), "ours", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, s)
}
