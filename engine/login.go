package engine

import (
	"context"
	"fmt"
	"strings"

	"nook/images/registry"
	"nook/internal/hint"
)

// DefaultRegistry is where names without a registry lead, and login without
// one.
const DefaultRegistry = "docker.io"

// Credential is what a registry knows a person by.
type Credential = registry.Credential

// known are credentials that are tried before they are kept.
type known struct{ Credential }

func (k known) Lookup(context.Context, string) (registry.Credential, error) { return k.Credential, nil }

// registryName takes what people type at login: a registry, also as a URL.
func registryName(server string) (string, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://"), "/")
	switch {
	case name == "", name == "index.docker.io", name == "index.docker.io/v1":
		return DefaultRegistry, nil
	case strings.ContainsAny(name, "/@ \t"):
		return "", hint.Errorf("give the registry alone: HOST[:PORT]", "%q is no registry", server)
	}
	return name, nil
}

// Login asks a registry whether it knows the credentials, and keeps them for
// pull and push. It returns the file that they were written to in plain text,
// "" when a credential helper has them.
func (e *Engine) Login(ctx context.Context, server string, c Credential) (file string, err error) {
	name, err := registryName(server)
	if err != nil {
		return "", err
	}
	keys, err := dockerKeys()
	if err != nil {
		return "", fmt.Errorf("login: %w", err)
	}
	client, _, err := remotes(known{c})
	if err != nil {
		return "", err
	}
	defer client.Close()
	if err := client.Login(ctx, name); err != nil {
		return "", fmt.Errorf("login to %s: %w", name, err)
	}
	inFile, err := keys.Store(ctx, name, c)
	if err != nil {
		return "", fmt.Errorf("keep the credentials for %s: %w", name, err)
	}
	if inFile {
		file = keys.File()
	}
	return file, nil
}

// Credentials are those that are kept for a registry.
func (e *Engine) Credentials(ctx context.Context, server string) (Credential, error) {
	name, err := registryName(server)
	if err != nil {
		return Credential{}, err
	}
	keys, err := dockerKeys()
	if err != nil {
		return Credential{}, err
	}
	return keys.Lookup(ctx, name)
}

// Logout forgets the credentials for a registry; found: there were some.
func (e *Engine) Logout(ctx context.Context, server string) (name string, found bool, err error) {
	if name, err = registryName(server); err != nil {
		return "", false, err
	}
	keys, err := dockerKeys()
	if err != nil {
		return name, false, fmt.Errorf("logout: %w", err)
	}
	found, err = keys.Erase(ctx, name)
	if err != nil {
		return name, false, fmt.Errorf("logout from %s: %w", name, err)
	}
	return name, found, nil
}
