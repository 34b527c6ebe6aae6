package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"nook/internal/hint"
)

// How a registry lets someone in (RFC 7235 and the token specification of
// distribution):
//
//	client ──> registry       GET /v2/app/manifests/latest
//	       <──                401, WWW-Authenticate: Bearer realm=…,service=…,scope=…
//	client ──> realm          GET ?service=…&scope=…, with the credentials if there are any
//	       <──                {"token": …, "expires_in": 300}
//	client ──> registry       GET again, Authorization: Bearer …
//
// or WWW-Authenticate: Basic, and the credentials go to the registry itself.

// authState is what a host wants, once it was asked.
type authState struct {
	basic   bool
	bearer  *challenge
	tokens  map[string]token // by scope
	looked  bool             // for credentials
	account Credential
}

type token struct {
	value   string
	expires time.Time
}

// tokenSpare is how long before its end a token isn't used any more.
const tokenSpare = 10 * time.Second

// defaultTokenLife is what the token specification says for answers without
// expires_in.
const defaultTokenLife = 60 * time.Second

// maxToken bounds the answer of a token server.
const maxToken = 1 << 20

// authorization is the header for a call, as far as it is known by now.
func (h *host) authorization(ctx context.Context, scope string) (string, error) {
	h.mu.Lock()
	basic, bearer, account := h.auth.basic, h.auth.bearer, h.auth.account
	t, found := h.auth.tokens[scope]
	h.mu.Unlock()
	switch {
	case basic:
		return basicHeader(account), nil
	case bearer == nil:
		return "", nil
	case account.RegistryToken != "":
		return "Bearer " + account.RegistryToken, nil
	case found && time.Now().Before(t.expires):
		return "Bearer " + t.value, nil
	case scope == "":
		return "", nil
	}
	value, err := h.token(ctx, bearer, scope)
	if err != nil {
		return "", err
	}
	return "Bearer " + value, nil
}

func basicHeader(c Credential) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// challenged learns from a refusal; false: there is nothing more to try. The
// authorization that was refused is forgotten.
func (h *host) challenged(ctx context.Context, headers []string, scope, authorization string) (bool, error) {
	account, err := h.credential(ctx)
	if err != nil {
		return false, err
	}
	for _, c := range parseChallenges(headers) {
		switch c.scheme {
		case "bearer":
			h.mu.Lock()
			h.auth.bearer, h.auth.basic = &c, false
			delete(h.auth.tokens, scope)
			h.mu.Unlock()
			if scope == "" {
				// The ping of login has no scope of its own.
				_, err := h.token(ctx, &c, "")
				return err == nil, err
			}
			return true, nil
		case "basic":
			if account.Username == "" && account.Password == "" || strings.HasPrefix(authorization, "Basic ") {
				continue
			}
			h.mu.Lock()
			h.auth.basic = true
			h.mu.Unlock()
			return true, nil
		}
	}
	return false, nil
}

// credential looks the person's credentials up once.
func (h *host) credential(ctx context.Context) (Credential, error) {
	h.mu.Lock()
	looked, account := h.auth.looked, h.auth.account
	h.mu.Unlock()
	if looked || h.client.opts.Credentials == nil || h.registry == "" {
		return account, nil
	}
	account, err := h.client.opts.Credentials.Lookup(ctx, h.registry)
	if err != nil {
		return account, fmt.Errorf("credentials for %s: %w", h.registry, err)
	}
	h.mu.Lock()
	h.auth.looked, h.auth.account = true, account
	h.mu.Unlock()
	return account, nil
}

// token asks the realm of a challenge for one, and keeps it.
func (h *host) token(ctx context.Context, c *challenge, scope string) (string, error) {
	account, err := h.credential(ctx)
	if err != nil {
		return "", err
	}
	realm, err := h.realm(c)
	if err != nil {
		return "", err
	}
	t, err := h.askToken(ctx, realm, c.parameters["service"], scope, account)
	if err != nil {
		return "", fmt.Errorf("token for %s: %w", h.registry, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.auth.tokens == nil {
		h.auth.tokens = make(map[string]token)
	}
	h.auth.tokens[scope] = t
	return t.value, nil
}

// realm is where tokens come from. Credentials that went to the registry over
// TLS don't go on without it.
func (h *host) realm(c *challenge) (*url.URL, error) {
	u, err := url.Parse(c.parameters["realm"])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%w: %s sends for a token to %q", ErrProtocol, h.address, oneLine(c.parameters["realm"]))
	}
	if u.Scheme == "http" && !h.lenient {
		return nil, fmt.Errorf("%w: %s sends for a token to plain http at %s", ErrProtocol, h.address, u.Host)
	}
	u.User = nil
	return u, nil
}

func (h *host) askToken(ctx context.Context, realm *url.URL, service, scope string, account Credential) (token, error) {
	query := realm.Query()
	if service != "" {
		query.Set("service", service)
	}
	for one := range strings.FieldsSeq(scope) {
		query.Add("scope", one)
	}
	if account.IdentityToken != "" {
		return h.exchange(ctx, realm, service, scope, account)
	}
	if account.Username != "" {
		query.Set("account", account.Username)
	}
	u := *realm
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if account.Username != "" || account.Password != "" {
		req.Header.Set("Authorization", basicHeader(account))
	}
	return h.sendForToken(req)
}

// exchange is OAuth2's grant of a refresh token, which some registries give at
// login in place of the password.
func (h *host) exchange(ctx context.Context, realm *url.URL, service, scope string, account Credential) (token, error) {
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {account.IdentityToken},
		"client_id": {"nook"}, "service": {service}, "scope": {scope},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return h.sendForToken(req)
}

// sendForToken speaks to a token server. It is not redirected: what it is
// asked with is for it alone.
func (h *host) sendForToken(req *http.Request) (token, error) {
	server := h.client.host("", req.URL.Host, h.lenient && req.URL.Host != h.address)
	client, err := server.http, server.tlsErr
	if req.URL.Host == h.address {
		client, err = h.http, h.tlsErr
	}
	if err != nil {
		return token{}, err
	}
	req.Header.Set("User-Agent", h.client.opts.UserAgent)
	resp, err := client.Do(req)
	if err != nil {
		return token{}, plainly(err, nil)
	}
	if resp.StatusCode != http.StatusOK {
		err := server.statusError(resp)
		var status *StatusError
		if errors.As(err, &status) {
			status.Host = req.URL.Host
		}
		return token{}, err
	}
	defer resp.Body.Close()
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return token{}, fmt.Errorf("%s: %w", req.URL.Host, err)
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return token{}, fmt.Errorf("%w: %s answers without a token", ErrProtocol, req.URL.Host)
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" || strings.ContainsAny(value, "\r\n") {
		return token{}, fmt.Errorf("%w: %s answers without a token", ErrProtocol, req.URL.Host)
	}
	life := time.Duration(answer.ExpiresIn) * time.Second
	if life <= 0 {
		life = defaultTokenLife
	}
	return token{value, time.Now().Add(max(life-tokenSpare, life/2))}, nil
}

// Login asks a registry whether it knows the credentials.
func (c *Client) Login(ctx context.Context, registry string) error {
	e := c.opts.Config.registry(registry, "")
	if e.blocked {
		return fmt.Errorf("%s: %w", registry, ErrBlocked)
	}
	h := c.host(registry, e.address, e.insecure)
	account, err := h.credential(ctx)
	if err != nil {
		return err
	}
	resp, err := h.do(ctx, call{method: http.MethodGet, path: "/v2/"})
	if errors.Is(err, ErrDenied) {
		return hint.Wrap(err, "check user name and password; some registries want a token in place of the password")
	}
	if err != nil {
		return advise(err, registry)
	}
	discard(resp)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.auth.basic && h.auth.bearer == nil && account != (Credential{}) {
		return nil // it lets anyone in: docker keeps the credentials, too
	}
	return nil
}

// challenge is one of a WWW-Authenticate header.
type challenge struct {
	scheme     string // lower case
	parameters map[string]string
}

// parseChallenges reads what RFC 7235 has in 4.1: several headers, with several
// challenges each.
func parseChallenges(headers []string) []challenge {
	var list []challenge
	for _, header := range headers {
		rest := header
		for rest = strings.TrimLeft(rest, " \t,"); rest != ""; rest = strings.TrimLeft(rest, " \t,") {
			var word string
			word, rest = cutToken(rest)
			if word == "" {
				break // not of the grammar
			}
			after := strings.TrimLeft(rest, " \t")
			if !strings.HasPrefix(after, "=") {
				list = append(list, challenge{strings.ToLower(word), map[string]string{}})
				continue
			}
			var value string
			value, rest = cutValue(strings.TrimLeft(after[1:], " \t"))
			if len(list) > 0 {
				list[len(list)-1].parameters[strings.ToLower(word)] = value
			}
		}
	}
	return list
}

func cutToken(s string) (word, rest string) {
	end := strings.IndexAny(s, " \t,=\"")
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		return cutToken(s)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			i++
			if i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}
