package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nook/internal/testenv/testregistry"
)

// tlsProxy passes CONNECT on to one server, whoever is asked for, and notes whom.
type tlsProxy struct {
	to    string
	mu    sync.Mutex
	asked []string
}

func (p *tlsProxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, req.Method+" "+req.Host+" "+req.Header.Get("Proxy-Authorization"))
	p.mu.Unlock()
	if req.Method != http.MethodConnect {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	client, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
	_ = client.Close()
}

// TestCertificatesOfTheEnvironment: a registry with a name is asked through the
// proxy of the environment, and believed if SSL_CERT_FILE or certs.d vouch for it.
// Both variables are read once a process, so the test runs itself again.
func TestCertificatesOfTheEnvironment(t *testing.T) {
	const variable = "NOOK_TEST_CERTIFICATES" // the directory of certs.d
	if dir := os.Getenv(variable); dir != "" {
		c := New(Options{CertDirs: []string{dir}})
		r, err := c.Repository("example.com", "app")
		if err == nil {
			_, err = r.Manifest(t.Context(), "1", accept)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	r := testregistry.New()
	r.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	right := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for _, tc := range []struct {
		name                string
		sslCertFile, certsD []byte
		want                string // of its error
	}{
		{"nobody vouches for it", otherCA(t), nil, "certificate"},
		{"SSL_CERT_FILE does", right, nil, ""},
		{"certs.d does", otherCA(t), right, ""},
		{"certs.d adds to SSL_CERT_FILE", right, otherCA(t), ""},
		{"neither does", otherCA(t), otherCA(t), "certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			file, certs := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "certs.d")
			if err := os.MkdirAll(filepath.Join(certs, "example.com"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, tc.sslCertFile, 0o600); err != nil {
				t.Fatal(err)
			}
			if tc.certsD != nil {
				if err := os.WriteFile(filepath.Join(certs, "example.com", "ca.crt"), tc.certsD, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			proxy := &tlsProxy{to: server.Listener.Addr().String()}
			through := httptest.NewServer(proxy)
			defer through.Close()
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestCertificatesOfTheEnvironment$", "-test.count=1")
			cmd.Env = append(os.Environ(), variable+"="+certs, "SSL_CERT_FILE="+file, "SSL_CERT_DIR="+dir+"/none", "NO_PROXY=",
				"HTTPS_PROXY="+strings.Replace(through.URL, "://", "://me:secret@", 1))
			out, err := cmd.CombinedOutput()
			if (err == nil) != (tc.want == "") || !strings.Contains(string(out), tc.want) {
				t.Errorf("%v: %s", err, out)
			}
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			if len(proxy.asked) == 0 || proxy.asked[0] != "CONNECT example.com:443 Basic bWU6c2VjcmV0" {
				t.Errorf("the proxy was asked %q", proxy.asked)
			}
			for _, req := range r.Requests() {
				if req.Authorization != "" {
					t.Errorf("the registry got %q", req.Authorization)
				}
			}
		})
	}
}

// ownCertificate makes a certificate and its key, as PEM.
func ownCertificate(t *testing.T) (certificate *x509.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "me"}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// TestClientCertificate: a registry that wants one gets that of certs.d.
func TestClientCertificate(t *testing.T) {
	r := testregistry.New()
	r.AddManifest("app", "1", testregistry.TypeManifest, []byte("{}"))
	mine, certPEM, keyPEM := ownCertificate(t)
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	pool := x509.NewCertPool()
	pool.AddCert(mine)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	dir := t.TempDir()
	ask := func() error {
		c := New(Options{CertDirs: []string{dir}})
		defer c.Close()
		repo, err := c.Repository(host, "app")
		if err != nil {
			return err
		}
		_, err = repo.Manifest(t.Context(), "1", accept)
		return err
	}
	if err := ask(); err == nil {
		t.Error("it was let in without a certificate")
	}
	if err := os.MkdirAll(filepath.Join(dir, host), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, host, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("client.cert", certPEM)
	wantPlainError(t, ask(), nil, "client certificate")
	write("client.key", keyPEM)
	if err := ask(); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
}
