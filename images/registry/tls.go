package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tlsConfig reads the certificates for an address from directories as docker's
// certs.d: every *.crt is a CA, NAME.cert and NAME.key are the client's own.
// CAs are added to the system's, which SSL_CERT_FILE replaces.
func tlsConfig(dirs []string, address string, lenient bool) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: lenient} //nolint:gosec // docker's rule for insecure registries
	for _, dir := range dirs {
		dir = filepath.Join(dir, address)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // most registries have none
		}
		for _, entry := range entries {
			if err := addCertificate(config, filepath.Join(dir, entry.Name())); err != nil {
				return nil, err
			}
		}
	}
	return config, nil
}

func addCertificate(config *tls.Config, name string) error {
	switch filepath.Ext(name) {
	case ".crt":
		data, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read CA certificate: %w", err)
		}
		if config.RootCAs == nil {
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				return fmt.Errorf("read the system's CA certificates: %w", err)
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return fmt.Errorf("CA certificate %s: there is no PEM certificate in it", name)
		}
		// Who names a CA wants it checked, on loopback too.
		config.InsecureSkipVerify = false
	case ".cert":
		key := strings.TrimSuffix(name, ".cert") + ".key"
		pair, err := tls.LoadX509KeyPair(name, key)
		if err != nil {
			return fmt.Errorf("client certificate %s: %w", name, err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return nil
}

// isPlain says whether a TLS handshake failed because the other side speaks
// none.
func isPlain(err error) bool {
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &alert), isCertificate(err), unreachable(err):
		return false
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, errBroken):
		return true
	}
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host)
}
