package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
	"nook/internal/testenv/testregistry"
)

// remote is a registry in memory, of this process.
type remote struct {
	*testregistry.Registry
	host string
	sent atomic.Int64 // bytes of all answers
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	r := &remote{Registry: testregistry.New()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.ServeHTTP(&countedWriter{w, &r.sent}, req)
	}))
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

type countedWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *countedWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

func (c *countedWriter) Flush() { c.ResponseWriter.(http.Flusher).Flush() }

// noisy is busybox with more layers, whose bytes nothing makes fewer.
func noisy(layers, size int) func(*testimage.Image) {
	return func(img *testimage.Image) {
		img.Compression = testimage.Gzip
		for i := range layers {
			body := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(body)
			img.Layers = append(img.Layers, testimage.Layer{Entries: []testimage.Entry{
				testimage.Dir("srv", 0o755), testimage.File(fmt.Sprintf("srv/%d", i), 0o644, string(body)).Owned(i, i),
			}})
		}
	}
}

// image puts app:1 into the registry, and returns the digests of its layers.
func (r *remote) image(t *testing.T, change func(*testimage.Image)) (layers []string) {
	t.Helper()
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	img, err := testimage.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	change(&img)
	if _, err := r.AddImage("app", "1", img); err != nil {
		t.Fatal(err)
	}
	for _, l := range img.Layers {
		body, err := l.Tar()
		if err == nil {
			body, err = testimage.Compress(img.Compression, body)
		}
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, testregistry.Digest(body))
	}
	return layers
}

// complete says what a registry lacks of an image.
func (r *remote) complete(repo, tag string) error {
	m, found := r.Manifest(repo, tag)
	if !found {
		return fmt.Errorf("the registry has no %s:%s", repo, tag)
	}
	type blob struct{ Digest string }
	var doc struct {
		Config blob
		Layers []blob
	}
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return err
	}
	for _, b := range append(doc.Layers, doc.Config) {
		if data, found := r.Blob(repo, b.Digest); !found || testregistry.Digest(data) != b.Digest {
			return fmt.Errorf("the registry has no %s of %s:%s", b.Digest, repo, tag)
		}
	}
	return nil
}

func blobIn(req *http.Request) (digest string, found bool) {
	_, digest, found = strings.Cut(req.URL.Path, "/blobs/")
	return digest, found && req.Method == http.MethodGet
}

// TestPullsAtOnceFetchOnce: three commands, one image; no layer comes before
// all three know what they want.
func TestPullsAtOnceFetchOnce(t *testing.T) {
	const pulls = 3
	eachMode(t, func(t *testing.T, m mode) {
		r := newRemote(t)
		layers := r.image(t, noisy(4, 1<<20))
		asked := make(chan struct{}) // closed once all have
		var manifests atomic.Int64
		r.Lie = func(_ http.ResponseWriter, req *http.Request) bool {
			digest, found := blobIn(req)
			switch {
			case strings.Contains(req.URL.Path, "/manifests/") && manifests.Add(1) == pulls:
				close(asked)
			case found && layers[0] == digest:
				select {
				case <-asked:
				case <-time.After(patience): // one has failed, and says so
				}
			}
			return false
		}
		h := newTestHost(t, m)
		var all sync.WaitGroup
		for range pulls {
			all.Go(func() {
				if out, err := h.cmd("nook", "pull", r.host+"/app:1").CombinedOutput(); err != nil {
					t.Errorf("nook pull: %v\n%s", err, out)
				}
			})
		}
		all.Wait()
		list := r.Requests()
		for i, digest := range layers {
			if n := testregistry.Count(list, "GET /v2/app/blobs/"+digest); n != 1 {
				t.Errorf("layer %d was asked for %d times", i, n)
			}
		}
		checked(t, h)
		h.run(t, "nook", "run", "--rm", r.host+"/app:1", "test", "-s", "/srv/3")
	})
}

// checked wants a store without a flaw.
func checked(t *testing.T, h *host) {
	t.Helper()
	if out := h.run(t, "nook", "system", "check"); !strings.Contains(out, ": 0 damaged, 0 left over\n") {
		t.Errorf("system check: %s", out)
	}
}

// TestInterruptedPullResumes: Ctrl-C in the middle of a layer; the next pull
// asks for the rest of it and for nothing that was whole.
func TestInterruptedPullResumes(t *testing.T) {
	const size, head = 8 << 20, 6 << 20
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				h := newTestHost(t, m)
				r := newRemote(t)
				layers := r.image(t, noisy(1, size))
				last := layers[len(layers)-1]
				r.Lie = func(w http.ResponseWriter, req *http.Request) bool {
					if digest, found := blobIn(req); !found || digest != last {
						return false
					}
					data, _ := r.Blob("app", last)
					w.Header().Set("Content-Length", fmt.Sprint(len(data)))
					_, _ = w.Write(data[:head])
					w.(http.Flusher).Flush()
					<-req.Context().Done()
					return true
				}
				cmd := h.cmd("nook", "pull", r.host+"/app:1")
				var said strings.Builder
				cmd.Stdout, cmd.Stderr = &said, &said
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				part := filepath.Join(h.root, "images/.partial", strings.TrimPrefix(last, "sha256:"))
				if err := until(func() error { return hasSize(part, head) }); err != nil {
					t.Error(err)
				}
				_ = cmd.Process.Signal(signal)
				_ = cmd.Wait()
				if code := cmd.ProcessState.ExitCode(); code == 0 {
					t.Errorf("a pull that got %v exits with 0 and says %s", signal, said.String())
				}
				if text, code := h.answer(t, "nook", "image", "inspect", r.host+"/app:1"); code == 0 {
					t.Errorf("half an image is there: %s", text)
				}
				if signal != syscall.SIGKILL {
					want(t, "half made", strings.Join(h.halfMade(), "\n"), "")
				}
				if _, code := h.answer(t, "nook", "system", "check"); code != 0 {
					t.Errorf("system check exits with %d", code)
				}
				r.Lie = nil
				r.Requests()
				r.sent.Store(0)
				h.run(t, "nook", "pull", r.host+"/app:1")
				resumed := 0
				for _, req := range r.Requests() {
					if !strings.Contains(req.Path, "/blobs/"+last) {
						continue
					}
					if resumed++; req.Range != fmt.Sprintf("bytes=%d-", head) {
						t.Errorf("the second pull asks for more than the rest: %s", req)
					}
				}
				// The others may have been under way too, and begin again then.
				most := int64(size - head + 64<<10)
				for _, digest := range layers[:len(layers)-1] {
					data, _ := r.Blob("app", digest)
					most += int64(len(data))
				}
				if sent := r.sent.Load(); resumed != 1 || sent > most {
					t.Errorf("the second pull asked %d times for the rest and got %d bytes, of %d that were missing", resumed, sent, size-head)
				}
				h.run(t, "nook", "run", "--rm", r.host+"/app:1", "test", "-s", "/srv/0")
				checked(t, h)
			})
		})
	}
}

func hasSize(name string, size int64) error {
	info, err := os.Stat(name)
	if err == nil && info.Size() != size {
		err = fmt.Errorf("%s has %d bytes, want %d", name, info.Size(), size)
	}
	return err
}

// TestDiskFullOfImages: where there is no room for all of an image it is
// refused with one line, nothing half made stays, and it works once there is.
func TestDiskFullOfImages(t *testing.T) {
	testenv.Need(t, "userns", testenv.UserNS)
	testenv.Need(t, "tmpfs", testenv.Tmpfs)
	r := newRemote(t)
	r.image(t, noisy(3, 1<<20))
	h := newTestHost(t, mode{name: "single", ids: "single"})
	archive := filepath.Join(h.dir, "home", "app.tar")
	writeImage(t, archive, func(img *testimage.Image) {
		noisy(3, 1<<20)(img)
		img.Name = "loaded:1"
	})
	data := filepath.Join(h.dir, "home", "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := h.cmd("unshare", "-Urm", "sh", "-c", fullDisk)
	cmd.Env = append(cmd.Env, "DATA="+data, "SAID="+filepath.Join(h.dir, "home", "said"), "ARCHIVE="+archive, "APP="+r.host+"/app:1", "OTHER="+r.host+"/other:1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	want(t, "on a full disk", string(out), "both run\npushed\nremoved\n")
	if m, found := r.Manifest("other", "1"); !found || len(m.Body) == 0 {
		t.Error("nothing was pushed from a full disk")
	}
}

// fullDisk prints what is wrong, and how far it came.
const fullDisk = `
mount -t tmpfs -o size=32m x $DATA
export NOOK_ROOT=$DATA/root
fails() {
	if "$@" >/dev/null 2>$SAID; then
		echo "there is no room, and $* succeeds"
	elif [ $(wc -l <$SAID) -gt 2 ] || ! head -n 1 $SAID | grep -q "no space left on device" || ! tail -n 1 $SAID | grep -q "make room"; then
		echo "there is no room, and $* says"; cat $SAID
	fi
	find $NOOK_ROOT -path '*/.staging/*' -o -path '*/.partial/*' -o -path '*/blobs/sha256/*'
	ls $NOOK_ROOT/layers 2>/dev/null | grep -v chains
	nook images -q
}
room() { # KIB: all but that is filled
	rm -f $DATA/fill
	head -c $(($(df --output=avail $DATA | tail -n 1) - $1))k /dev/zero >$DATA/fill
}
nook images >/dev/null
for kib in 8 64 1500 3500 5000; do
	room $kib
	fails nook pull -q $APP
	fails nook load -q -i $ARCHIVE
done
rm $DATA/fill
nook pull -q $APP >/dev/null && nook load -q -i $ARCHIVE >/dev/null && nook system check >$SAID || cat $SAID
nook run --rm $APP test -s /srv/2 && nook run --rm loaded:1 test -s /srv/2 && echo both run
nook tag loaded:1 $OTHER
nook create --name box loaded:1 true >/dev/null
cat /dev/zero >$DATA/fill 2>/dev/null
nook push -q $OTHER >/dev/null && echo pushed
nook rm box >/dev/null && nook rmi $APP >/dev/null && nook rmi -f loaded:1 $OTHER >/dev/null && echo removed
find $NOOK_ROOT/images/blobs/sha256 -type f
`
