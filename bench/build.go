package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nook/internal/testenv"
)

// buildRounds are few: a cold build takes many seconds.
const buildRounds = 3

// builder is one program that builds.
type builder struct {
	name    string
	command func(args ...string) *exec.Cmd
	imports func(tar string) *exec.Cmd
	verb    string
	flags   []string // that make it do what nook does by default
}

func newBuilders(s settings) []builder {
	n, p := newNook(s, "mapped"), newPodman(s)
	n.root, p.root = filepath.Join(s.own(), "nook-build"), filepath.Join(s.own(), "podman-build")
	b := podmanStore{s, filepath.Join(s.own(), "buildah"), ""}
	buildah := func(args ...string) *exec.Cmd {
		cmd := exec.Command("buildah", append([]string{"--root", b.root, "--runroot", filepath.Join(s.own(), "run", "buildah"),
			"--storage-driver", "overlay"}, args...)...)
		cmd.Env = append(os.Environ(), "BUILDAH_RUNTIME=crun")
		return cmd
	}
	alike := []string{"--network", "host", "--layers", "--pull=false"}
	return []builder{
		{name: "nook", command: n.command, verb: "build", imports: func(tar string) *exec.Cmd { return n.command("import", tar, debianImage) }},
		{name: "podman", command: p.command, verb: "build", flags: alike, imports: func(tar string) *exec.Cmd { return p.command("import", tar, debianImage) }},
		{name: "buildah", command: buildah, verb: "bud", flags: alike, imports: func(tar string) *exec.Cmd {
			return shell(buildah("from", "--name", "base", "scratch"), buildah("add", "base", tar, "/"), buildah("commit", "base", debianImage))
		}},
	}
}

// shell runs commands one after the other.
func shell(list ...*exec.Cmd) *exec.Cmd {
	var lines []string
	for _, cmd := range list {
		lines = append(lines, "'"+strings.Join(cmd.Args, "' '")+"'")
	}
	cmd := exec.Command("sh", "-ec", strings.Join(lines, "\n"))
	cmd.Env = list[0].Env
	return cmd
}

const debianImage = "localhost/debian"

func (b builder) ready(tar string) func() error {
	return func() error {
		if _, err := exec.LookPath(b.command().Args[0]); err != nil {
			return err
		}
		if quietly(b.command("inspect", "--type", "image", debianImage)) == nil {
			return nil
		}
		return patiently(b.imports(tar))
	}
}

func (b builder) build(dir string, more ...string) *exec.Cmd {
	args := append([]string{b.verb, "-q", "-t", "localhost/made"}, b.flags...)
	return b.command(append(append(args, more...), dir)...)
}

// buildPart times builds.
func buildPart(s settings, w io.Writer) error {
	tar, err := testenv.DebianTar()
	if err != nil {
		return err
	}
	proxy, err := testenv.StartAptProxy()
	if err != nil {
		return err
	}
	defer proxy.Stop()
	defer endPause()
	b := building{s: s, w: w, tar: tar, proxy: proxy.URL, dir: filepath.Join(s.own(), "contexts"), list: newBuilders(s), rounds: buildRounds}
	if s.quick {
		b.rounds = 1
	}
	fmt.Fprintf(w, "## `build`\n\nOn an image of Debian; podman and buildah with --layers, as nook is, and the host's network. %d rounds after 1 that doesn't count, of the quick ones three times as many.\n\n", b.rounds)
	for _, do := range []func() error{b.changed, b.cold, b.stages, b.cached} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

type building struct {
	s          settings
	w          io.Writer
	tar, proxy string
	dir        string
	list       []builder
	rounds     int
}

// context makes one with a Dockerfile.
func (b building) context(name, dockerfile string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644)
}

// times lets all build a context.
func (b building) times(rounds int, dir string, args ...string) []times {
	var list []contestant
	for _, one := range b.list {
		list = append(list, contestant{
			name: one.name, ready: one.ready(b.tar),
			command: func(int) *exec.Cmd { return one.build(dir, args...) },
		})
	}
	return race(list, 1, rounds)
}

// ahead are bars about how many times as fast nook is.
func (b building) ahead(all []times, what string, least float64) {
	atLeast(b.w, what, least, over(all, "podman", "podman", "nook"), over(all, "buildah", "buildah", "nook"))
}

const nginxDockerfile = `FROM localhost/debian
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx && rm -rf /var/lib/apt/lists/*
RUN ln -sf /dev/stdout /var/log/nginx/access.log
COPY Dockerfile /usr/share/
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
`

func (b building) cold() error {
	dir, err := b.context("nginx", nginxDockerfile)
	if err != nil {
		return err
	}
	fmt.Fprint(b.w, "Cold: nginx by apt-get, `--no-cache`. The packages come from a proxy on loopback that has them since the first round.\n\n")
	all := b.times(b.rounds, dir, "--no-cache", "--build-arg", "http_proxy="+b.proxy)
	table(b.w, all, "ratio to nook")
	b.ahead(all, "a cold build is not slower", 1)
	return nil
}

func (b building) stages() error {
	lines := "FROM localhost/debian AS a\nRUN sleep 1 && echo a >/a\nFROM localhost/debian AS b\nRUN sleep 1 && echo b >/b\n" +
		"FROM localhost/debian\nRUN sleep 1\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
	dir, err := b.context("stages", lines)
	if err != nil {
		return err
	}
	fmt.Fprint(b.w, "Three stages that sleep a second each and need nothing of each other until their ends, `--no-cache`.\n\n")
	all := b.times(b.rounds, dir, "--no-cache")
	table(b.w, all, "ratio to nook")
	atMost(b.w, "three stages of a second take less than two, in ms", 2000, figure{"nook", medianOf(all, "nook")})
	b.ahead(all, "twice as fast", 2)
	return nil
}

func (b building) cached() error {
	dir, err := b.context("nginx", nginxDockerfile)
	if err != nil {
		return err
	}
	fmt.Fprint(b.w, "The nginx image again, all of it from the cache.\n\n")
	all := b.times(3*b.rounds, dir, "--build-arg", "http_proxy="+b.proxy)
	table(b.w, all, "ratio to nook")
	atMost(b.w, "a cached build is under 60 ms", 60, figure{"ms", medianOf(all, "nook")})
	b.ahead(all, "a cached build is five times as fast", 5)
	return nil
}

// changed times one changed file in a large context, and cp of that context.
func (b building) changed() error {
	const files, inDir = 20_000, 100
	dir, err := b.context("many", "FROM localhost/debian\nCOPY . /src\n")
	if err != nil {
		return err
	}
	name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("d%03d/f%03d", i/inDir, i%inDir)) }
	for i := range files {
		if i%inDir == 0 {
			if err := os.MkdirAll(filepath.Dir(name(i)), 0o755); err != nil {
				return err
			}
		}
		text := strings.Repeat(fmt.Sprintf("the file %d of many\n", i), 200)
		if err := os.WriteFile(name(i), []byte(text), 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(b.w, "One changed file in a context of %d files of 4 KB, and `cp -r` of that context to the same disk. "+
		"Who removes as many files beside them would be part of it, so podman and buildah stay out.\n\n", files)
	change := func(text string) { _ = os.WriteFile(name(files/2), []byte(text), 0o644) }
	copies := filepath.Join(b.dir, "copies")
	// They stay until the end: see transfer. So this comes before all who
	// remove trees.
	defer func() { _ = os.RemoveAll(copies) }()
	if err := os.Mkdir(copies, 0o755); err != nil {
		return err
	}
	list := []contestant{{name: "cp -r", ready: func() error { return nil }, command: func(round int) *exec.Cmd {
		settle(b.dir)
		return exec.Command("cp", "-r", dir, filepath.Join(copies, fmt.Sprint(round)))
	}}}
	nook := b.list[0]
	list = append(list, contestant{
		name: nook.name, note: "what is unchanged is linked from the layer of before", ready: nook.ready(b.tar),
		command: func(round int) *exec.Cmd {
			change(fmt.Sprint("round ", round))
			settle(b.dir)
			return nook.build(dir)
		},
	})
	all := race(list, 2, 3*b.rounds)
	table(b.w, all, "ratio to cp")
	atMost(b.w, "at most 1.5 times cp -r", 1.5, over(all, "nook", "nook", "cp -r"))
	return nil
}
