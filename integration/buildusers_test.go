package integration

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// TestBuildIsTheSameForAllUsers builds the same sources as root and as users of
// whom the machine knows nothing, each in a home of its own and with another
// umask: with SOURCE_DATE_EPOCH they get the same image and the same manifest.
// engine.TestBuildIsReproducible has the rest: ids, clocks, orders.
func TestBuildIsTheSameForAllUsers(t *testing.T) {
	testenv.Need(t, "root", testenv.Root)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	const dockerfile = `FROM busybox AS made
WORKDIR /w
COPY . .
RUN cat one two >three && mkdir -p /srv/deep && rm one
FROM busybox
COPY --from=made /w /w
COPY --chown=5:6 two /own/
RUN ln -s /w /link
`
	var first string
	for _, user := range []struct {
		name, ids, umask string
		uid              int
	}{
		{"root", "auto", "022", 0},
		{"a", "single", "077", 234567},
		{"another", "single", "002", 345678},
	} {
		h := newTestHost(t, mode{name: user.name, ids: user.ids})
		archive := filepath.Join(h.dir, "busybox.tar")
		writeImage(t, archive, func(*testimage.Image) {})
		if err := filepath.Walk(h.dir, func(name string, _ os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(name, user.uid, user.uid)
		}); err != nil {
			t.Fatal(err)
		}
		sh := func(script string) string {
			t.Helper()
			cmd := h.cmd("sh", "-ec", "umask "+user.umask+"\n"+script)
			cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=1234567890")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(user.uid), Gid: uint32(user.uid)}}
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v\n%s", user.name, err, said.String())
			}
			return string(out)
		}
		sh("nook load -q -i busybox.tar; mkdir home/" + user.name + "; cd home/" + user.name + "; echo 1 >one; echo 2 >two\n" +
			"cat >Dockerfile <<'!'\n" + dockerfile + "!\nchmod 644 *\n") // modes are content
		got := sh("cd home/" + user.name + "; nook build -q -t made .; nook inspect -f '{{.RepoDigests}} {{.RootFS.Layers}}' made; nook run --rm made cat /link/three")
		sh("nook rmi made busybox")
		if first == "" {
			first = got
		}
		if got != first || !strings.Contains(got, "sha256:") || !strings.HasSuffix(got, "\n1\n2\n") {
			t.Errorf("%s made\n%s\nand the first user\n%s", user.name, got, first)
		}
	}
}
