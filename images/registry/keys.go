package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

// Keys are the credentials in docker's config.json and in the helpers that it
// names (docker/docker-credential-helpers):
//
//	{"auths": {"localhost:5000": {"auth": "base64 of USER:PASSWORD"}},
//	 "credHelpers": {"registry.lan": "pass"}, "credsStore": "secretservice"}
//
// What else is in the file stays as it is.
type Keys struct {
	file string
}

// NewKeys is the config.json in a directory, which may be missing.
func NewKeys(dir string) *Keys { return &Keys{filepath.Join(dir, "config.json")} }

// File is where the credentials are.
func (k *Keys) File() string { return k.file }

// hubKey is what docker calls docker.io's credentials.
const hubKey = "https://index.docker.io/v1/"

// keyOf is a registry's name in config.json.
func keyOf(registry string) string {
	if registry == dockerHub || registry == dockerHubHost {
		return hubKey
	}
	return registry
}

type keysFile struct {
	Auths       map[string]json.RawMessage `json:"auths"`
	CredHelpers map[string]string          `json:"credHelpers"`
	CredsStore  string                     `json:"credsStore"`
}

type authEntry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

func (k *Keys) read() (f keysFile, all map[string]json.RawMessage, err error) {
	all = make(map[string]json.RawMessage)
	data, err := os.ReadFile(k.file)
	if errors.Is(err, fs.ErrNotExist) {
		return f, all, nil
	}
	if err == nil && len(bytes.TrimSpace(data)) > 0 {
		if err = json.Unmarshal(data, &all); err == nil {
			err = json.Unmarshal(data, &f)
		}
	}
	if err != nil {
		return f, nil, hint.Wrap(fmt.Errorf("read %s: %w", k.file, err), "mend the file, or name another directory in DOCKER_CONFIG")
	}
	return f, all, nil
}

// Lookup finds the credentials for a registry: those of its helper, then those
// in the file, where old versions of docker have keys that are URLs.
func (k *Keys) Lookup(ctx context.Context, registry string) (Credential, error) {
	f, _, err := k.read()
	if err != nil {
		return Credential{}, err
	}
	key := keyOf(registry)
	if helper := f.helper(key, registry); helper != "" {
		c, err := helperGet(ctx, helper, key)
		if err != nil || c != (Credential{}) {
			return c, err
		}
	}
	raw, found := f.Auths[key]
	for name, other := range f.Auths {
		if found {
			break
		}
		if bareHost(name) == bareHost(key) {
			raw, found = other, true
		}
	}
	if !found {
		return Credential{}, nil
	}
	return parseAuth(raw)
}

func (f *keysFile) helper(key, registry string) string {
	for _, name := range []string{key, registry} {
		if helper, found := f.CredHelpers[name]; found {
			return helper
		}
	}
	return f.CredsStore
}

// bareHost makes localhost:5000 of https://localhost:5000/v1/.
func bareHost(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	if path = strings.Trim(path, "/"); path != "" && path != "v1" && path != "v2" {
		return key // podman's credentials of one repository
	}
	return host
}

func parseAuth(raw json.RawMessage) (Credential, error) {
	var a authEntry
	if err := json.Unmarshal(raw, &a); err != nil {
		return Credential{}, fmt.Errorf("its entry in config.json: %w", err)
	}
	c := Credential{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.Auth == "" {
		return c, nil
	}
	plain, err := base64.StdEncoding.DecodeString(a.Auth)
	user, password, found := strings.Cut(string(plain), ":")
	if err != nil || !found {
		return Credential{}, errors.New("its auth in config.json is not the base64 of USER:PASSWORD")
	}
	c.Username, c.Password = user, strings.Trim(password, "\x00")
	return c, nil
}

// Store keeps credentials: in the helper, if there is one, else in the file,
// which nobody else may read. inFile says that it is the file.
func (k *Keys) Store(ctx context.Context, registry string, c Credential) (inFile bool, err error) {
	key := keyOf(registry)
	return k.change(registry, func(f *keysFile, helper string) error {
		if helper != "" {
			secret := helperSecret{ServerURL: key, Username: c.Username, Secret: c.Password}
			return runHelper(ctx, helper, "store", secret, nil)
		}
		raw, err := json.Marshal(authEntry{
			Auth: base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password)), IdentityToken: c.IdentityToken,
		})
		f.Auths[key] = raw
		return err
	})
}

// Erase forgets the credentials for a registry; found: there were some.
func (k *Keys) Erase(ctx context.Context, registry string) (found bool, err error) {
	key := keyOf(registry)
	_, err = k.change(registry, func(f *keysFile, helper string) error {
		if helper != "" {
			had, err := helperGet(ctx, helper, key)
			if err != nil {
				return err
			}
			if had != (Credential{}) {
				found = true
				if err := runHelper(ctx, helper, "erase", key, nil); err != nil {
					return err
				}
			}
		}
		for name := range f.Auths {
			if name == key || bareHost(name) == bareHost(key) {
				found = true
				delete(f.Auths, name)
			}
		}
		return nil
	})
	return found, err
}

// change edits the file under a lock, and writes it when that changed it.
func (k *Keys) change(registry string, edit func(f *keysFile, helper string) error) (wrote bool, err error) {
	// Where a link leads is what other programs read and write, too.
	file := k.file
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return false, fmt.Errorf("make the directory of config.json: %w", err)
	}
	unlock, err := lockDir(filepath.Dir(file))
	if err != nil {
		return false, err
	}
	defer unlock()
	f, all, err := k.read()
	if err != nil {
		return false, err
	}
	if f.Auths == nil {
		f.Auths = make(map[string]json.RawMessage)
	}
	before, _ := json.Marshal(f.Auths)
	if err := edit(&f, f.helper(keyOf(registry), registry)); err != nil {
		return false, err
	}
	after, err := json.Marshal(f.Auths)
	if err != nil || bytes.Equal(before, after) {
		return false, err
	}
	all["auths"] = after
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return false, err
	}
	return true, atomicfile.Write(file, append(data, '\n'), 0o600, atomicfile.Durable)
}

// lockDir locks a directory itself: a lock file would be litter in docker's.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}

type helperSecret struct {
	ServerURL string
	Username  string
	Secret    string
}

// noCredentials is what helpers say on standard output where there are none.
const noCredentials = "credentials not found"

func helperGet(ctx context.Context, helper, key string) (Credential, error) {
	var s helperSecret
	err := runHelper(ctx, helper, "get", key, &s)
	if err != nil && strings.Contains(err.Error(), noCredentials) || err == nil && s.Secret == "" {
		return Credential{}, nil
	}
	if err != nil {
		return Credential{}, err
	}
	if s.Username == "<token>" { // the protocol's word for an identity token
		return Credential{IdentityToken: s.Secret}, nil
	}
	return Credential{Username: s.Username, Password: s.Secret}, nil
}

// runHelper runs docker-credential-HELPER. A string goes in as it is, anything
// else as JSON.
func runHelper(ctx context.Context, helper, action string, in, out any) error {
	name := "docker-credential-" + helper
	if strings.ContainsAny(helper, "/\x00") {
		return fmt.Errorf("credential helper %q is no name", oneLine(helper))
	}
	input, isText := in.(string)
	if !isText {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		input = string(data)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, action)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return hint.Errorf("install it, or take it out of config.json", "credential helper %s is not in PATH", name)
		}
		return fmt.Errorf("%s %s: %w: %s", name, action, err, oneLine(stdout.String()+" "+stderr.String()))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		return fmt.Errorf("%s %s: %w", name, action, err)
	}
	return nil
}
