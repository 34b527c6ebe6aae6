package registry

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// dockerHub is the registry of names without one. Its API has a host of its
// own.
const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
)

// Credentials finds the credentials for a registry as image names have it; the
// zero Credential when there are none.
type Credentials interface {
	Lookup(ctx context.Context, registry string) (Credential, error)
}

// Credential is what a registry knows a person by.
type Credential struct {
	Username string
	Password string
	// IdentityToken is asked for tokens instead of the password.
	IdentityToken string
	// RegistryToken is sent as it is.
	RegistryToken string
}

// Options are what a Client goes by.
type Options struct {
	// Config says where registries are; nil: where their names say.
	Config *Config
	// Credentials; nil: nobody's.
	Credentials Credentials
	// CertDirs hold HOST[:PORT]/*.crt, and client certificates beside them, as
	// docker's certs.d.
	CertDirs  []string
	UserAgent string
	// Sleep waits between attempts; nil: as long as it is told.
	Sleep func(context.Context, time.Duration) error
	// Stall is how long nothing may arrive; 0: a minute.
	Stall time.Duration
}

const (
	stall          = time.Minute
	connectTimeout = 30 * time.Second
	// maxConnections to one host: side by side downloads and a token.
	maxConnections = 8
)

// Client talks to any number of registries. It is for one process's use: the
// tokens it got stay in it.
type Client struct {
	opts  Options
	mu    sync.Mutex
	hosts map[string]*host
}

// New makes a client. Nothing is asked of any registry yet.
func New(o Options) *Client {
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Stall == 0 {
		o.Stall = stall
	}
	if o.Config == nil {
		o.Config = &Config{}
	}
	return &Client{opts: o, hosts: make(map[string]*host)}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// host is one server, and what was learnt of it.
type host struct {
	client   *Client
	registry string // as image names have it: where credentials are looked up
	address  string // host[:port]
	// lenient: plain HTTP and certificates of anyone will do.
	lenient bool
	http    *http.Client
	tlsErr  error // certificates that can't be read

	mu       sync.Mutex
	scheme   string // "" as long as only trying tells
	answered bool
	auth     authState
}

// host gives the one of a registry at an address.
func (c *Client) host(registry, address string, insecure bool) *host {
	if address == dockerHub {
		address = dockerHubHost
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprint(registry, " ", address, " ", insecure)
	if h := c.hosts[key]; h != nil {
		return h
	}
	h := &host{client: c, registry: registry, address: address, lenient: insecure || isLoopback(address)}
	if !h.lenient {
		h.scheme = "https"
	}
	h.http, h.tlsErr = c.transport(address, h.lenient)
	c.hosts[key] = h
	return h
}

// elsewhere is a client for a host that a registry redirected to: certificates
// are looked at as for any other, whatever the registry itself may do.
func (c *Client) elsewhere(address string) (*http.Client, error) {
	h := c.host("", address, false)
	return h.http, h.tlsErr
}

func (c *Client) transport(address string, lenient bool) (*http.Client, error) {
	config, err := tlsConfig(c.opts.CertDirs, address, lenient)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			DialContext:     (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig: config,
			// HTTP/1.1 alone: a connection a layer is faster than one for all.
			TLSNextProto:           nil,
			TLSHandshakeTimeout:    connectTimeout,
			ResponseHeaderTimeout:  c.opts.Stall,
			MaxIdleConnsPerHost:    maxConnections,
			MaxConnsPerHost:        maxConnections,
			MaxResponseHeaderBytes: 256 << 10,
			IdleConnTimeout:        time.Minute,
			// A blob is what its digest says, also where it is gzip.
			DisableCompression: true,
			WriteBufferSize:    64 << 10,
			ReadBufferSize:     64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// isLoopback says whether an address can only be this machine.
func isLoopback(address string) bool {
	name := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// Close lets go of idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		if h.http != nil {
			h.http.CloseIdleConnections()
		}
	}
}
