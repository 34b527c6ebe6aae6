package integration

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// debianImage writes the cached Debian as a docker archive with one layer.
func debianImage(t *testing.T) (rootfs, archive string) {
	t.Helper()
	testenv.Need(t, "long", testenv.Long)
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "mmdebstrap", testenv.Mmdebstrap)
	if os.Geteuid() != 0 { // whose mmdebstrap needs no ids of /etc/subuid
		testenv.Need(t, "subids", testenv.Subids)
	}
	rootfs, err := testenv.DebianTar()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(rootfs)
	if err != nil {
		t.Fatal(err)
	}
	img := testimage.Image{Name: "debian:latest", Layers: []testimage.Layer{{Raw: raw}}, Config: testimage.Config{
		Cmd: []string{"bash"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}}}
	archive = filepath.Join(shared(t), "debian.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(img.WriteDocker(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return rootfs, archive
}

// newTestHost is a data root of its own for a Go test, checked and removed at
// its end.
func newTestHost(t *testing.T, m mode) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "t")
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(dir, os.Getenv(binVariable), m)
	if err := h.make(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range h.left(patience) {
			t.Error("left behind: ", l)
		}
		h.end()
		if err := testenv.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return h
}

// cmd is a command in the test's environment.
func (h *host) cmd(name string, args ...string) *exec.Cmd {
	if name == "nook" || name == "refuse" {
		name = filepath.Join(h.bin, name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = h.env()
	cmd.Dir = h.dir
	return cmd
}

// run runs a command that has to succeed and returns its standard output.
func (h *host) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := h.cmd(name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, said.String())
	}
	return string(out)
}

// TestDebian is a whole distribution: everything its archive says stands in the
// container, and its own tools agree.
func TestDebian(t *testing.T) {
	rootfs, archive := debianImage(t)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "load", "-q", "-i", archive)

		out := h.run(t, "nook", "run", "--rm", "debian", "sh", "-c", "dpkg -l | wc -l; id; cat /proc/self/status")
		lines := strings.Split(out, "\n")
		if n, _ := strconv.Atoi(lines[0]); n < 80 {
			t.Errorf("dpkg -l has %q lines, want some 90", lines[0])
		}
		for _, want := range []string{"uid=0(root) gid=0(root)", "CapEff:\t00000000a80425fb", "Seccomp:\t2"} {
			if !strings.Contains(out, want) {
				t.Errorf("got %s\nwant %q in it", out, want)
			}
		}
		t.Run("dpkg verifies every file", func(t *testing.T) {
			if out := h.run(t, "nook", "run", "--rm", "debian", "dpkg", "-V"); out != "" {
				t.Errorf("dpkg -V: %s", out)
			}
		})
		t.Run("the tree is the archive's", func(t *testing.T) { compareTree(t, h, m, rootfs) })
		t.Run("file capabilities", func(t *testing.T) {
			if out := h.run(t, "nook", "run", "--rm", "debian", "sh", "-c", "getcap /bin/ping /usr/bin/ping"); !strings.Contains(out, "cap_net_raw=ep") {
				t.Errorf("getcap: %q, want cap_net_raw=ep", out)
			}
		})
		t.Run("private", func(t *testing.T) {
			h.run(t, "nook", "run", "--rm", "debian", "sh", "-c", "echo x >/etc/mine; rm -r /var/lib/dpkg; test -e /etc/mine")
			h.run(t, "nook", "run", "--rm", "debian", "sh", "-c", "test ! -e /etc/mine && dpkg -l >/dev/null")
		})
		if m.name == "single" {
			return
		}
		t.Run("setuid binaries", func(t *testing.T) {
			out := h.run(t, "nook", "run", "--rm", "debian", "su", "-s", "/bin/sh", "nobody", "-c", "id -u; id -gn")
			if out != "65534\nnogroup\n" {
				t.Errorf("su nobody: %q", out)
			}
		})
	})
}

// node is what is compared of a file. Directories' sizes and link counts are
// the file system's own business.
type node struct {
	kind  byte
	perm  int64
	owner string
	size  int64
	time  int64
	link  string
}

// compareTree compares every file in a container with the archive's entry.
func compareTree(t *testing.T, h *host, m mode, rootfs string) {
	want := readTree(t, rootfs)
	got := map[string]node{}
	out := h.run(t, "nook", "run", "--rm", "--entrypoint", "find", "debian",
		"/", "-xdev", "-printf", `%y|%m|%U:%G|%s|%Ts|%l|%p\n`)
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 7)
		if len(f) != 7 {
			t.Fatalf("find says %q", line)
		}
		perm, _ := strconv.ParseInt(f[1], 8, 32)
		size, _ := strconv.ParseInt(f[3], 10, 64)
		seconds, _ := strconv.ParseInt(f[4], 10, 64)
		got[f[6]] = node{f[0][0], perm, f[2], size, seconds, f[5]}
	}
	wrong := 0
	for name, w := range want {
		g, ok := got[name]
		if m.name == "single" {
			g.owner, w.owner = "", "" // no other id exists there
		}
		if w.kind != 'f' {
			g.size, w.size = 0, 0
		}
		if !ok {
			t.Errorf("%s is missing", name)
		} else if g != w {
			t.Errorf("%s is %+v, want %+v", name, g, w)
		} else {
			continue
		}
		if wrong++; wrong == 20 {
			t.Fatal("and more")
		}
	}
	if len(want) < 3000 {
		t.Errorf("the archive has %d entries only", len(want))
	}
}

// readTree reads the archive, without what a container has of its own: mounts
// and the device nodes.
func readTree(t *testing.T, name string) map[string]node {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree := map[string]node{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := path.Join("/", h.Name)
		if top, _, _ := strings.Cut(p[1:], "/"); top == "dev" || top == "proc" || top == "sys" || top == "" {
			continue
		}
		switch p {
		case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc": // files of the container's, and what making them touches
			continue
		}
		n := node{perm: h.Mode & 0o7777, owner: fmt.Sprintf("%d:%d", h.Uid, h.Gid), time: h.ModTime.Unix(), size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			n.kind = 'f'
		case tar.TypeDir:
			n.kind = 'd'
		case tar.TypeSymlink:
			n.kind, n.link = 'l', h.Linkname
		case tar.TypeLink:
			n = tree[path.Join("/", h.Linkname)]
		default:
			continue
		}
		tree[p] = n
	}
	return tree
}

// TestDebianByOtherHands loads the same Debian as skopeo and umoci write it.
func TestDebianByOtherHands(t *testing.T) {
	_, archive := debianImage(t)
	testenv.Need(t, "skopeo", testenv.Skopeo)
	testenv.Need(t, "umoci", testenv.Umoci)
	dir := shared(t)
	tool := func(t *testing.T, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	tool(t, "skopeo", "copy", "-q", "--insecure-policy", "docker-archive:"+archive, "oci:gzip:debian:gzip")
	tool(t, "skopeo", "copy", "-q", "--insecure-policy", "--dest-compress-format", "zstd", "docker-archive:"+archive, "oci-archive:zstd.tar:debian:zstd")
	// umoci removes and adds: whiteouts of a real tool above a real distribution.
	// repack writes what mtree(8) sees changed, so nothing else is in the layer.
	tool(t, "umoci", "unpack", "--rootless", "--image", "gzip:debian:gzip", "bundle")
	t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+rwX", filepath.Join(dir, "bundle")).Run() })
	tool(t, "sh", "-c", "chmod -R u+rwX bundle/rootfs/usr/share/doc bundle/rootfs/etc && rm -rf bundle/rootfs/usr/share/doc && rm bundle/rootfs/etc/debian_version && echo umoci >bundle/rootfs/etc/added")
	tool(t, "umoci", "repack", "--image", "gzip:debian:umoci", "bundle")
	tool(t, "skopeo", "copy", "-q", "--insecure-policy", "oci:gzip:debian:umoci", "oci-archive:umoci.tar:debian:umoci")

	eachMode(t, func(t *testing.T, m mode) {
		for _, tc := range []struct{ form, script string }{
			{"gzip", "dpkg -l | grep -c ^ii; test -e /etc/debian_version"},
			{"zstd.tar", "dpkg -l | grep -c ^ii; test -e /etc/debian_version"},
			{"umoci.tar", "dpkg -l | grep -c ^ii; test ! -e /etc/debian_version && test ! -e /usr/share/doc && grep -q umoci /etc/added"},
		} {
			t.Run(tc.form, func(t *testing.T) {
				h := newTestHost(t, m)
				h.run(t, "nook", "load", "-q", "-i", filepath.Join(dir, tc.form))
				id := strings.Fields(h.run(t, "nook", "images", "-q"))
				out := h.run(t, "nook", "run", "--rm", id[0], "sh", "-c", tc.script)
				if n, _ := strconv.Atoi(strings.TrimSpace(out)); n < 80 {
					t.Errorf("%s packages, want 80 or more", out)
				}
			})
		}
	})
}
