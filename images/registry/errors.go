package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"nook/internal/hint"
)

var (
	// ErrNotFound says that a registry doesn't have what was asked for.
	ErrNotFound = errors.New("not found in the registry")
	// ErrDenied says that a registry wants other credentials, or none will do.
	ErrDenied = errors.New("access denied")
	// ErrSize says that a registry sent more or fewer bytes than it promised.
	ErrSize = errors.New("the registry's answer has a wrong size")
	// ErrDigest says that content isn't what its digest promised.
	ErrDigest = errors.New("the registry's answer has a wrong digest")
	// ErrBlocked says that the registries configuration blocks a registry.
	ErrBlocked = errors.New("the registry is blocked")
	// ErrProtocol says that an answer is none that a registry gives.
	ErrProtocol = errors.New("not the answer of a registry")
)

// StatusError is an answer of a registry that is no success.
type StatusError struct {
	Host string
	Code int // of HTTP
	// Reason is what the registry says, in one line; "" when it says nothing.
	Reason string
	// codes are those of the distribution specification, "Error Codes".
	codes []string
	// wait is what Retry-After asks for, 0 without one.
	wait time.Duration
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s answers %d %s", e.Host, e.Code, http.StatusText(e.Code))
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// Is makes errors.Is(err, ErrNotFound) and ErrDenied work.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Code == http.StatusNotFound
	case ErrDenied:
		return e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden
	}
	return false
}

// Temporary says whether another attempt may end otherwise: a broken
// connection, a timeout, a server that is busy or restarts.
func Temporary(err error) bool {
	var status *StatusError
	var dns *net.DNSError
	var network net.Error
	switch {
	case err == nil:
		return false
	case errors.Is(err, errStalled), errors.Is(err, errBroken):
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &status):
		switch status.Code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ETIMEDOUT):
		return true
	}
	return errors.As(err, &network) && network.Timeout()
}

// unreachable says that no connection came about at all.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// Causes of a request's end that are not the caller's.
var (
	errStalled = errors.New("the connection stalls")
	errBroken  = errors.New("the connection broke off")
)

// advise adds what a person can do to the error of a whole call.
func advise(err error, registry string) error {
	if err == nil || hint.Of(err) != "" {
		return err
	}
	var status *StatusError
	var dns *net.DNSError
	login := "nook login"
	if registry != dockerHub {
		login += " " + registry
	}
	switch {
	case errors.As(err, &status) && status.Code == http.StatusTooManyRequests:
		return hint.Wrap(err, "the registry limits how often it is asked: wait, or log in with "+login)
	case errors.Is(err, ErrDenied):
		return hint.Wrap(err, "it may be private or not exist at all: check the name, or log in with "+login)
	case isCertificate(err):
		return hint.Wrap(err, "put the registry's CA certificate at ~/.config/nook/certs.d/"+registry+"/ca.crt")
	case isPlain(err):
		return hint.Wrap(err, "if the registry speaks plain HTTP, say insecure = true for it in ~/.config/nook/registries.conf")
	case errors.As(err, &dns), unreachable(err):
		return hint.Wrap(err, "is the registry's name right, and does this machine need a proxy (HTTPS_PROXY)?")
	}
	return err
}

// oneLine is what a registry says, fit for an error: no control bytes, not
// endless.
func oneLine(s string) string {
	const longest = 300
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == ' ' }), " ")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	return s
}
