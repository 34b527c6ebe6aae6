package registry

import (
	"net/http"
	"os"
	"os/exec"
	"testing"

	"nook/internal/testenv/testregistry"
)

// TestThroughAProxy runs itself again with a proxy in the environment, which
// net/http reads once a process.
func TestThroughAProxy(t *testing.T) {
	const variable = "NOOK_TEST_THROUGH_PROXY"
	if os.Getenv(variable) != "" {
		c := New(Options{Config: &Config{Registries: []Location{{Prefix: "registry.test", Location: "registry.test", Insecure: true}}}})
		r, err := c.Repository("registry.test", "app")
		if err == nil {
			_, err = r.Manifest(t.Context(), "1", accept)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	w := newWorld(t)
	w.Lie = func(rw http.ResponseWriter, req *http.Request) bool {
		if req.Method == http.MethodConnect { // to see whether it speaks TLS
			rw.WriteHeader(http.StatusBadGateway)
			return true
		}
		if req.URL.Host != "registry.test" {
			t.Errorf("the proxy is asked for %s", req.URL)
		}
		return false
	}
	w.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestThroughAProxy$", "-test.count=1")
	cmd.Env = append(os.Environ(), variable+"=1", "HTTP_PROXY="+w.server.URL, "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if n := testregistry.Count(w.Requests(), "GET /v2/app/manifests/1"); n != 1 {
		t.Errorf("the proxy was asked %d times", n)
	}
}
