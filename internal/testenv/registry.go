package testenv

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// DockerRegistry (docker-registry): the registry from Debian.
var DockerRegistry = Program("docker-registry", "--version")

// The one account of a registry with passwords. The hash is bcrypt's.
const (
	RegistryUser     = "me"
	RegistryPassword = "secret"
	registryHtpasswd = RegistryUser + ":$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
)

// RegistryOptions say what a Registry asks of its clients.
type RegistryOptions struct {
	TLS  bool // a certificate that only CA vouches for
	Auth bool // RegistryUser and RegistryPassword
}

// Registry is Debian's docker-registry on loopback, with a storage of its own.
type Registry struct {
	Host string // 127.0.0.1:PORT
	CA   string // a PEM file; "" without TLS
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan struct{}
}

// StartRegistry starts one in an empty directory. Stop ends it.
func StartRegistry(dir string, o RegistryOptions) (*Registry, error) {
	var err error
	for range 5 { // the port may be taken between the look and the start
		var r *Registry
		if r, err = startRegistry(dir, o); err == nil {
			return r, nil
		}
	}
	return nil, err
}

func startRegistry(dir string, o RegistryOptions) (*Registry, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Registry{Host: l.Addr().String(), done: make(chan struct{})}
	if err := l.Close(); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\n", filepath.Join(dir, "storage"))
	if o.Auth {
		file := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(file, []byte(registryHtpasswd), 0o600); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", file)
	}
	config += fmt.Sprintf("http:\n  addr: %q\n", r.Host)
	if o.TLS {
		r.CA = filepath.Join(dir, "ca.crt")
		key := filepath.Join(dir, "key.pem")
		if err := writeCertificate(r.CA, key); err != nil {
			return nil, err
		}
		config += fmt.Sprintf("  tls: {certificate: %q, key: %q}\n", r.CA, key)
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	r.cmd = exec.Command("docker-registry", "serve", file)
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	r.cmd.Env = []string{"PATH=/usr/bin:/bin", "OTEL_TRACES_EXPORTER=none"}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(r.done)
		_ = r.cmd.Wait()
	}()
	return r, r.wait()
}

// wait waits until somebody listens. The process' end is what ends a vain wait.
func (r *Registry) wait() error {
	for range 3000 {
		conn, err := net.Dial("tcp", r.Host)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-r.done:
			return fmt.Errorf("docker-registry ended: %s", strings.TrimSpace(r.said.String()))
		case <-time.After(10 * time.Millisecond):
		}
	}
	r.Stop()
	return errors.New("docker-registry doesn't listen")
}

// Stop ends the registry.
func (r *Registry) Stop() {
	_ = r.cmd.Process.Signal(syscall.SIGKILL)
	<-r.done
}

// writeCertificate makes one for loopback that vouches for itself.
func writeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "nook test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}
