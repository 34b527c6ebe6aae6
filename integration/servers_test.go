package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"nook/engine"
	"nook/internal/testenv"
)

// server is a tree of Debian with a server in it, made once a machine.
func server(t *testing.T, build func() (string, error)) (rootfs string) {
	t.Helper()
	testenv.Need(t, "long", testenv.Long)
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "mmdebstrap", testenv.Mmdebstrap)
	if os.Geteuid() != 0 { // whose mmdebstrap needs no ids of /etc/subuid
		testenv.Need(t, "subids", testenv.Subids)
	}
	rootfs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return rootfs
}

// TestDebianNginx: three servers of one image at once, each with its own page.
func TestDebianNginx(t *testing.T) {
	rootfs := server(t, testenv.NginxTar)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		command := `CMD ["nginx", "-g", "daemon off;"]`
		if m.name == "single" {
			// Its workers change to a user, and there is no other id. They say
			// that they can't change their groups, and go on.
			command = `CMD ["sh", "-c", "sed -i 's/^user .*/user root;/' /etc/nginx/nginx.conf && exec nginx -g 'daemon off;'"]`
		}
		h.run(t, "nook", "import", "-c", "EXPOSE 80", "-c", "STOPSIGNAL SIGQUIT", "-c", command, rootfs, "nginx")
		webs := []string{"web1", "web2", "web3"}
		for _, name := range webs {
			h.run(t, "nook", "run", "-d", "--name", name, "nginx")
		}
		const page = "/var/www/html/index.html"
		for _, name := range webs {
			h.run(t, "nook", "exec", name, "sh", "-c", "echo this is "+name+" >"+page)
		}
		serves := func(t *testing.T) {
			t.Helper()
			for _, name := range webs {
				want := "this is " + name + "\n"
				h.until(t, `\A200 `+want+`\z`, "exec", name, "bash", "-c", getInside)
				if got := h.get(t, name); got != want {
					t.Errorf("%s serves %q through a dialled connection, want %q", name, got, want)
				}
			}
		}
		t.Run("each serves its own", serves)
		t.Run("the workers are another user's", func(t *testing.T) {
			if m.name == "single" {
				return
			}
			if out := h.run(t, "nook", "exec", "web1", "sh", "-c", "cat /proc/[0-9]*/status"); !strings.Contains(out, "Uid:\t33\t33") {
				t.Errorf("no process of www-data in\n%s", out)
			}
		})
		t.Run("stopped as STOPSIGNAL says, they start with their pages", func(t *testing.T) {
			h.run(t, "nook", append([]string{"stop", "-t", "60"}, webs...)...)
			for _, name := range webs {
				want(t, name+"'s end", h.run(t, "nook", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name), "exited 0\n")
			}
			const quit = "signal=3"
			if out := h.run(t, "nook", "events", "--since", "1h", "--until", "0s", "--filter", "event=kill"); strings.Count(out, quit) != len(webs) || strings.Count(out, "signal=") != len(webs) {
				t.Errorf("want a %s for each of three and no other in\n%s", quit, out)
			}
			h.run(t, "nook", append([]string{"start"}, webs...)...)
			serves(t)
		})
		t.Run("the image has no page", func(t *testing.T) {
			h.run(t, "nook", "run", "--rm", "nginx", "sh", "-c", "test -d /var/www/html && test ! -e "+page)
		})
		t.Run("rm deletes them", func(t *testing.T) {
			h.run(t, "nook", append([]string{"rm", "-f"}, webs...)...)
			want(t, "ps", h.run(t, "nook", "ps", "-aq"), "")
			h.run(t, "nook", "run", "-d", "--name", "web1", "nginx")
			h.until(t, `\A200 (?s:.*)Welcome to nginx`, "exec", "web1", "bash", "-c", getInside)
			h.run(t, "nook", "rm", "-f", "web1")
		})
	})
}

// getInside is a web client of bash: the status and the page.
const getInside = `
	exec 3<>/dev/tcp/127.0.0.1/80
	printf 'GET / HTTP/1.0\r\n\r\n' >&3
	read -r _ status _ <&3
	while read -r line && [ "$line" != $'\r' ]; do :; done <&3
	echo "$status $(cat <&3)"`

// get asks a container's server from outside, through its monitor.
func (h *host) get(t *testing.T, name string) (page string) {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{Root: h.root, IDs: h.ids})
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return e.Dial(ctx, name, network, address)
		},
	}}
	answer, err := client.Get("http://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", answer.StatusCode, err, text)
	}
	return string(text)
}

// TestDebianPostgres: a database that is made, stopped, started and written to.
func TestDebianPostgres(t *testing.T) {
	rootfs := server(t, testenv.PostgresTar)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		h.run(t, "nook", "import",
			"-c", "ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"-c", "ENV PGDATA="+testenv.PostgresData, "-c", "ENV PGHOST=/tmp",
			"-c", "USER postgres", "-c", "EXPOSE 5432", "-c", "STOPSIGNAL SIGINT",
			"-c", fmt.Sprintf("ENTRYPOINT [%q]", testenv.PostgresEntrypoint),
			"-c", `CMD ["postgres", "-c", "unix_socket_directories=/tmp"]`,
			rootfs, "postgres:15")
		h.run(t, "nook", "run", "-d", "--name", "db", "--stop-timeout", "60", "postgres:15")
		const ready = "database system is ready to accept connections"
		ups := func(n int) { // logs of the server are on its standard error
			t.Helper()
			h.untilLogged(t, "db", ready, n)
		}
		psql := func(sql string) string {
			t.Helper()
			return h.run(t, "nook", "exec", "db", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql)
		}
		ups(1)
		want(t, "version", psql("show server_version_num")[:2], "15")
		psql("create table t (n int, word text)")
		psql("insert into t select n, 'word ' || n from generate_series(1, 1000) n")

		h.run(t, "nook", "stop", "db")
		want(t, "its end", h.run(t, "nook", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "db"), "exited 0\n")
		log := h.logged(t, "db")
		for _, line := range []string{"received fast shutdown request", "database system is shut down"} {
			if !strings.Contains(log, line) {
				t.Errorf("after a stop the log has no %q:\n%s", line, log)
			}
		}

		h.run(t, "nook", "start", "db")
		ups(2)
		log = h.logged(t, "db")
		if strings.Contains(log, "was interrupted") || strings.Contains(log, "not properly shut down") {
			t.Errorf("the second start had to recover:\n%s", log)
		}
		want(t, "data after a start", psql("select count(*), sum(n), max(word) from t"), "1000|500500|word 999\n")

		// A database survives the kill of its container, too.
		psql("insert into t values (0, 'last')")
		h.run(t, "nook", "kill", "db")
		h.run(t, "nook", "start", "db")
		ups(3)
		want(t, "data after a kill", psql("select word from t where n = 0"), "last\n")
		if log := h.logged(t, "db"); !strings.Contains(log, "was not properly shut down") {
			t.Errorf("nothing was recovered after a kill:\n%s", log)
		}
		h.run(t, "nook", "stop", "db")
		h.run(t, "nook", "rm", "db")
		h.run(t, "nook", "run", "--rm", "--entrypoint", "test", "postgres:15", "!", "-e", testenv.PostgresData+"/PG_VERSION")

		// What is in a volume outlives the container, and another reads it.
		data := "pgdata:" + testenv.PostgresData
		h.run(t, "nook", "run", "-d", "--name", "db", "--stop-timeout", "60", "-v", data, "postgres:15")
		ups(1)
		psql("create table kept as select n from generate_series(1, 100) n")
		want(t, "a second container", h.run(t, "nook", "run", "--rm", "-v", data+":ro", "--entrypoint", "cat", "postgres:15",
			testenv.PostgresData+"/PG_VERSION"), "15\n")
		if said, code := h.answer(t, "nook", "volume", "rm", "pgdata"); code == 0 {
			t.Errorf("volume rm of a volume in use: %s", said)
		}
		h.run(t, "nook", "stop", "db")
		h.run(t, "nook", "rm", "-v", "db")
		h.run(t, "nook", "run", "-d", "--name", "db", "--stop-timeout", "60", "-v", data, "postgres:15")
		ups(1)
		want(t, "data in a volume after rm and run", psql("select count(*), sum(n) from kept"), "100|5050\n")
		h.run(t, "nook", "rm", "-f", "db")
		h.run(t, "nook", "volume", "rm", "pgdata")
	})
}

// logged is all that a container wrote.
func (h *host) logged(t *testing.T, name string) string {
	t.Helper()
	text, err := h.cmd("nook", "logs", name).CombinedOutput()
	if err != nil {
		t.Fatalf("nook logs %s: %v\n%s", name, err, text)
	}
	return string(text)
}

// untilLogged waits until a container wrote a text that many times.
func (h *host) untilLogged(t *testing.T, name, text string, times int) {
	t.Helper()
	err := until(func() error {
		if log := h.logged(t, name); strings.Count(log, text) < times {
			return fmt.Errorf("%q was not logged %d times:\n%s", text, times, log)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
