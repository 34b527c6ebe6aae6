package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"nook/engine"
	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// A web server in a container, asked over a connection into its own network: no
// port of the host is used. TestExample runs it.
func Example() {
	// The main of a program begins with this: see Main.
	if code, handled := engine.Main(os.Args); handled {
		os.Exit(code)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := engine.Open(ctx, engine.Options{}) // the data root is NOOK_ROOT's
	if err != nil {
		log.Fatal(err)
	}
	if _, err := e.Load(ctx, engine.LoadOptions{Path: "busybox.tar"}); err != nil {
		log.Fatal(err)
	}
	id, err := e.RunDetached(ctx, engine.RunOptions{
		Image:   "busybox",
		Command: []string{"sh", "-c", "echo hello >/tmp/index.html; exec httpd -f -vv -p 80 -h /tmp"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := e.RemoveContainer(ctx, id, engine.RemoveOptions{Force: true}); err != nil {
			log.Fatal(err)
		}
	}()
	if err := e.WaitForPort(ctx, id, "tcp", "localhost:80"); err != nil {
		log.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return e.Dial(ctx, id, network, address)
		},
	}}
	resp, err := client.Get("http://localhost/index.html")
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s", resp.Status, body)
	if _, err := e.WaitForLog(ctx, id, regexp.MustCompile(`response:200$`).Match); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the server logged it")
	code, err := e.Exec(ctx, id, engine.ExecOptions{Command: []string{"cat", "/tmp/index.html"}}, engine.Streams{Out: os.Stdout})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("exit code", code)
}

// TestExample runs the example where it can be: the example itself could not
// say that it can't.
func TestExample(t *testing.T) {
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "overlay", testenv.Overlay)
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testenv.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := img.WriteDocker(&archive); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busybox.tar"), archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("NOOK_ROOT", filepath.Join(dir, "root"))
	const want = "200 OK: hello\nthe server logged it\nhello\nexit code 0\n"
	if got := printed(t, Example); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// printed is what f writes to standard output.
func printed(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text := make(chan string)
	go func() {
		data, _ := io.ReadAll(r)
		text <- string(data)
	}()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	f()
	_ = w.Close()
	return <-text
}
