package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
)

// TestBuildCorpusBuildah builds the corpus with the buildah of a Debian trixie.
// What it makes is what is wanted of nook, but where docker's documentation has
// it otherwise: NAME.why. There it has to differ, or the reason is no more.
//
//	go test ./integration -run TestBuildCorpusBuildah -corpus.buildah -v
func TestBuildCorpusBuildah(t *testing.T) {
	testenv.Need(t, "corpus.buildah", func() error {
		if !*corpusBuildah {
			return errors.New("only -corpus.buildah asks for it")
		}
		return nil
	})
	testenv.Need(t, "root", testenv.Root)
	testenv.Need(t, "mmdebstrap", testenv.Mmdebstrap)
	trixie := unpackTrixie(t)
	files, base := corpus(t)
	baseConfig, below := readArchive(t, base, nil)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			h := newTestHost(t, mode{name: "root", ids: "auto"})
			b := buildah{root: trixie, work: h.dir}
			h.run(t, "cp", base, "busybox.tar")
			for _, args := range [][]string{{"pull", "-q", "docker-archive:busybox.tar"}, {"tag", "busybox", "docker.io/library/busybox:latest"}} {
				if out, err := b.command(args...).CombinedOutput(); err != nil {
					t.Fatalf("buildah %s: %v\n%s", args, err, out)
				}
			}
			results := map[string]string{}
			cases := readCorpus(t, file, h.dir)
			server := serveCorpus(t, h.dir)
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					write(t, filepath.Join(h.dir, "Dockerfile"), c.dockerfile)
					out := filepath.Join(h.dir, "made.tar")
					_ = os.Remove(out) // buildah adds no image to an archive that is there
					got := b.build(c.flags(server), "made.tar")
					if got == "" {
						config, tree := readArchive(t, out, below)
						for _, point := range []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"} {
							if tree[point] == `file 0755 0:0 ""` { // it mounted something there for RUN
								delete(tree, point)
							}
						}
						got = describeResult(baseConfig, config, tree)
					}
					switch {
					case c.why != "" && got == c.want:
						t.Errorf("buildah agrees, but there is a reason why it doesn't: %s", c.why)
					case c.why != "":
						t.Logf("%sbuildah makes of it\n%s", c.why, got)
					case *corpusUpdate:
						results[c.name] = got
					case got != c.want:
						t.Errorf("buildah makes of it\n%s\nwant\n%s", got, c.want)
					}
				})
			}
			if *corpusUpdate {
				updateCorpus(t, file, results)
			}
		})
	}
}

func unpackTrixie(t *testing.T) (dir string) {
	t.Helper()
	archive, err := testenv.TrixieBuildahTar()
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "trixie")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "--numeric-owner", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}

// buildah is one in a root of its own, with a directory of the host as /work.
type buildah struct{ root, work string }

// enter makes the mounts that it needs, in a namespace that goes with it. Its
// root is a mount: it remounts that.
const enter = `mount --bind "$0" "$0"; cd "$0"
mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
mkdir -p work; mount --bind "$1" work; shift
exec chroot . sh -c 'cd /work; exec buildah --root /work/b --runroot /work/br --storage-driver overlay "$@"' sh "$@"`

func (b buildah) command(args ...string) *exec.Cmd {
	script := append([]string{"-m", "--propagation", "private", "sh", "-ec", enter, b.root, b.work}, args...)
	cmd := exec.Command("unshare", script...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "BUILDAH_ISOLATION=chroot"}
	return cmd
}

// build is what buildah says when it doesn't make the image. An image that is
// its base again isn't written by a build: it is pushed.
func (b buildah) build(flags []string, out string) (refusal string) {
	args := []string{
		"build", "--format", "docker", "--layers=false", "--pull-never", "-q", "-f", "Dockerfile", "-t", "made",
		// It asks for more by itself than a root without all capabilities may have.
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
	}
	said, err := b.command(append(append(args, flags...), "ctx")...).CombinedOutput()
	if err == nil {
		said, err = b.command("push", "-q", "made", "docker-archive:"+out).CombinedOutput()
	}
	if err != nil {
		return "refused: " + string(said)
	}
	return ""
}
