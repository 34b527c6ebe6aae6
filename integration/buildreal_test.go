package integration

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
)

var buildReal = flag.Bool("build.real", false, "build all of the real images, not nginx alone")

// builder is a data root with a Debian to build on, and a registry to push to.
type builder struct {
	*host
	registry string
	proxy    string
}

// newBuilder makes one. The Debian is the machine's own, as mmdebstrap made it,
// and apt fetches through a proxy that remembers.
func newBuilder(t *testing.T) *builder {
	t.Helper()
	testenv.Need(t, "docker-registry", testenv.DockerRegistry)
	testenv.Need(t, "subids", testenv.Subids) // dpkg changes owners
	rootfs := server(t, testenv.DebianTar)
	proxy, err := testenv.StartAptProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	dir, err := os.MkdirTemp("", "registry")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	registry, err := testenv.StartRegistry(dir, testenv.RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(registry.Stop)
	b := &builder{newTestHost(t, mode{name: "mapped", ids: "mapped"}), registry.Host, proxy.URL}
	b.run(t, "nook", "import", rootfs, "debian:plain")
	// Lists that are old are good enough where there is no network.
	b.build(t, "debian", "FROM debian:plain\nRUN echo 'Acquire::Check-Valid-Until \"false\";' >/etc/apt/apt.conf.d/90test\n")
	return b
}

// build builds a Dockerfile without a context, or in the directory ctx.
func (b *builder) build(t *testing.T, name, dockerfile string, ctx ...string) {
	t.Helper()
	if len(ctx) == 0 {
		ctx = []string{t.TempDir()}
	}
	file := filepath.Join(b.dir, "Dockerfile")
	write(t, file, dockerfile)
	b.run(t, "nook", "build", "--progress", "plain", "--build-arg", "http_proxy="+b.proxy, "-t", name, "-f", file, ctx[0])
}

// elsewhere pushes an image and pulls it into another data root.
func (b *builder) elsewhere(t *testing.T, name string, m mode) *host {
	t.Helper()
	far := b.registry + "/" + name
	b.run(t, "nook", "tag", name, far)
	b.run(t, "nook", "push", "-q", far)
	other := newTestHost(t, m)
	other.run(t, "nook", "pull", "-q", far)
	other.run(t, "nook", "tag", far, name)
	return other
}

// readmeDockerfile is the one that README.md shows for an image.
func readmeDockerfile(t *testing.T, name string) string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(readme), "```dockerfile\n# nook build -t "+name+" .\n")
	text, _, ended := strings.Cut(rest, "```")
	if !found || !ended {
		t.Fatalf("README.md has no Dockerfile of %s", name)
	}
	return text
}

// TestBuildReal builds real images on Debian, brings them to other data roots
// by a registry, and runs them.
func TestBuildReal(t *testing.T) {
	if os.Geteuid() == 0 {
		return // what root builds is no other
	}
	b := newBuilder(t)
	mapped, single := modes()[0], modes()[1]
	t.Run("nginx", func(t *testing.T) {
		b.build(t, "nginx:latest", readmeDockerfile(t, "nginx:latest"))
		// Whose workers change to a user needs more than a single id.
		alone := []string{"sh", "-c", "sed -i 's/^user .*/user root;/' /etc/nginx/nginx.conf && exec nginx -g 'daemon off;'"}
		for _, tc := range []struct {
			m    mode
			args []string
		}{{mapped, nil}, {single, alone}} {
			h := b.elsewhere(t, "nginx:latest", tc.m)
			h.run(t, "nook", append([]string{"run", "-d", "--name", "web", "nginx"}, tc.args...)...)
			h.until(t, `\A200 (?s:.*)Welcome to nginx`, "exec", "web", "bash", "-c", getInside)
			h.untilLogged(t, "web", `"GET / HTTP/1.0" 200`, 1)
			h.run(t, "nook", "stop", "-t", "60", "web")
			want(t, "its end", h.run(t, "nook", "inspect", "-f", "{{.State.ExitCode}}", "web"), "0\n")
			h.run(t, "nook", "rm", "web")
			h.run(t, "nook", "system", "check", "--quick")
		}
	})
	if !*buildReal {
		return
	}
	t.Run("postgres", func(t *testing.T) { realPostgres(t, b, mapped) })
	t.Run("python", func(t *testing.T) { realPython(t, b, mapped) })
	t.Run("go", func(t *testing.T) { realGo(t, b) })
	t.Run("node", func(t *testing.T) { realNode(t, b, mapped) })
}

func realPostgres(t *testing.T, b *builder, m mode) {
	b.build(t, "postgres:15", readmeDockerfile(t, "postgres:15"))
	h := b.elsewhere(t, "postgres:15", m)
	h.run(t, "nook", "run", "-d", "--name", "db", "--stop-timeout", "60", "-v", "data:"+testenv.PostgresData, "postgres:15")
	const ready = "database system is ready to accept connections"
	h.untilLogged(t, "db", ready, 1)
	psql := func(sql string) string {
		t.Helper()
		return h.run(t, "nook", "exec", "db", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql)
	}
	psql("create table t as select n from generate_series(1, 100) n")
	h.run(t, "nook", "stop", "db")
	h.run(t, "nook", "start", "db")
	h.untilLogged(t, "db", ready, 2)
	want(t, "sum", psql("select count(*), sum(n) from t"), "100|5050\n")
	h.run(t, "nook", "rm", "-f", "db")
	h.run(t, "nook", "volume", "rm", "data")
}

func realPython(t *testing.T, b *builder, m mode) {
	b.build(t, "app:python", `FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home app
WORKDIR /home/app
COPY --chown=app <<! app.py
import json, os, sqlite3
db = sqlite3.connect("app.db")
print(json.dumps([os.getuid(), db.execute("select 6 * 7").fetchone()[0]]))
!
USER app
CMD ["python3", "app.py"]
`)
	want(t, "the program", b.elsewhere(t, "app:python", m).run(t, "nook", "run", "--rm", "app:python"), "[1000, 42]\n")
}

// realGo compiles with this machine's Go, whose directory is the context, twice:
// the second time finds the first's packages in the cache mount.
func realGo(t *testing.T, b *builder) {
	const goroot = "/usr/local/go" // as its own instructions install it
	testenv.Need(t, "go", testenv.Program(goroot+"/bin/go", "version"))
	for _, word := range []string{"first", "second"} {
		b.build(t, "app:go", strings.ReplaceAll(`FROM debian AS build
COPY --link --exclude=test --exclude=api . /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH CGO_ENABLED=0
WORKDIR /src
COPY <<! main.go
package main

import "fmt"

func main() { fmt.Println("WORD") }
!
RUN --mount=type=cache,target=/root/.cache/go-build \
    { test WORD = first || test -d /root/.cache/go-build/00; } && \
    go build -trimpath -o /hello main.go
FROM scratch
COPY --from=build /hello /
ENTRYPOINT ["/hello"]
`, "WORD", word), goroot)
		want(t, "the program", b.elsewhere(t, "app:go", modes()[1]).run(t, "nook", "run", "--rm", "app:go"), word+"\n")
	}
}

func realNode(t *testing.T, b *builder, m mode) {
	b.build(t, "app:node", `FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends nodejs && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY <<! package.json
{"name": "app", "version": "1.2.3", "main": "server.js"}
!
COPY <<! server.js
const {version} = require("./package.json")
require("http").createServer((_, answer) => answer.end("node app " + version)).listen(80)
process.on("SIGTERM", () => process.exit(7))
!
CMD ["node", "server.js"]
`)
	h := b.elsewhere(t, "app:node", m)
	h.run(t, "nook", "run", "-d", "--name", "app", "app:node")
	h.until(t, `\A200 node app 1\.2\.3`, "exec", "app", "bash", "-c", getInside)
	h.run(t, "nook", "stop", "-t", "60", "app")
	want(t, "its end", h.run(t, "nook", "inspect", "-f", "{{.State.ExitCode}}", "app"), "7\n")
	h.run(t, "nook", "rm", "app")
}
