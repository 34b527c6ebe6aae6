package engine

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"nook/containers"
	"nook/internal/hint"
	"nook/namespaces"
	"nook/rootfs"
)

// Secret is a file that a container finds in /run/secrets, or at its Target, and
// nobody finds anywhere else: not in what inspect shows, in an environment, in an image
// that is committed. Its value is read once, when the container is created.
//
// A container that may be started again has the values beside its record,
// readable for the user alone; Run with Remove keeps them in memory only.
type Secret struct {
	ID       string // the file's name
	Target   string // an absolute path, or a name in /run/secrets; "": ID
	Value    []byte
	Mode     uint32 // 0: 0444
	UID, GID uint32 // with single ids everything belongs to the container's root
}

// MaxSecret is how long a secret may be, docker's limit, in bytes.
const MaxSecret = 500 << 10

const secretMode = 0o444

// secretRecords checks the secrets and gives what the record tells of them.
func secretRecords(o RunOptions) ([]containers.Secret, error) {
	var out []containers.Secret
	targets := map[string]bool{}
	for _, s := range o.Secrets {
		if err := checkSecretID(s.ID); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(r containers.Secret) bool { return r.ID == s.ID }) {
			return nil, hint.Errorf("give each an id of its own", "secret %s: there are two of that id", s.ID)
		}
		if len(s.Value) > MaxSecret {
			return nil, hint.Errorf("a file that large may be a bind mount: -v", "secret %s: more than %d KiB", s.ID, MaxSecret>>10)
		}
		mode := s.Mode
		if mode == 0 {
			mode = secretMode
		}
		target, err := secretTarget(s)
		if err != nil {
			return nil, err
		}
		if targets[target] {
			return nil, hint.Errorf("give each a target of its own", "duplicate mount point: %s", target)
		}
		targets[target] = true
		r := containers.Secret{ID: s.ID, Target: target, Mode: mode, UID: s.UID, GID: s.GID}
		if target == path.Join(rootfs.SecretsDir, s.ID) {
			r.Target = ""
		}
		out = append(out, r)
	}
	return out, nil
}

// secretTarget is where a secret's file is. As docker has it, a target that is
// not absolute is in /run/secrets.
func secretTarget(s Secret) (string, error) {
	target := s.Target
	if target == "" {
		target = s.ID
	}
	if !path.IsAbs(target) {
		target = rootfs.SecretsDir + "/" + target
	}
	clean := path.Clean(target)
	fail := func(why string) (string, error) {
		return "", hint.Errorf("it is the absolute path of a file in the container, or a name in "+rootfs.SecretsDir,
			"secret %s: target %.300q: %s", s.ID, s.Target, why)
	}
	for _, tree := range []string{"/proc", "/sys"} {
		if clean == tree || strings.HasPrefix(clean, tree+"/") {
			return fail("nothing is mounted in " + tree)
		}
	}
	dir, name := path.Split(clean)
	switch {
	case strings.ContainsRune(target, 0):
		return fail("a path with a NUL byte")
	case strings.HasSuffix(target, "/"), clean == "/", clean == rootfs.SecretsDir, strings.HasPrefix(rootfs.SecretsDir, clean+"/"):
		return fail("it is a directory")
	case dir != rootfs.SecretsDir+"/" && strings.HasPrefix(dir, rootfs.SecretsDir+"/"):
		return fail(rootfs.SecretsDir + " has no directories")
	case dir == rootfs.SecretsDir+"/" && checkSecretID(name) != nil:
		return fail("a name there is one that an id may be")
	}
	return clean, nil
}

// checkSecretID applies docker's rule for the names of secrets.
func checkSecretID(id string) error {
	const (
		longest = 64
		letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	)
	if id == "" || len(id) > longest || !strings.Contains(letters, id[:1]) || strings.Trim(id, letters+"_.-") != "" {
		return hint.Errorf("an id is up to 64 of a-z A-Z 0-9 _ . - and begins with a letter or digit", "invalid secret id %q", id)
	}
	return nil
}

// freeOfMounts refuses mounts that would hide secrets, or be hidden by them.
func freeOfMounts(cfg *containers.Config) error {
	if len(cfg.Secrets) == 0 {
		return nil
	}
	taken := make([]string, 0, len(cfg.Secrets))
	for _, s := range cfg.Secrets {
		if path.Dir(s.Target) == rootfs.SecretsDir || s.Target == "" {
			s.Target = rootfs.SecretsDir
		}
		taken = append(taken, s.Target)
	}
	for _, m := range cfg.Mounts {
		for _, t := range taken {
			if m.Target == t || strings.HasPrefix(m.Target, t+"/") {
				return hint.Errorf("mount it elsewhere", "duplicate mount point: %s: --secret mounts %s", m.Target, t)
			}
		}
	}
	return nil
}

// keepSecrets keeps the values for those that start the container. Who
// creates it to run once hands them on itself.
func keepSecrets(ct containers.Container, cfg *containers.Config, o RunOptions) error {
	if len(o.Secrets) == 0 || o.started && cfg.Remove {
		return nil
	}
	return ct.WriteSecrets(secretValues(o.Secrets))
}

func secretValues(list []Secret) map[string][]byte {
	values := make(map[string][]byte, len(list))
	for _, s := range list {
		values[s.ID] = s.Value
	}
	return values
}

// secretFiles are the secrets for a start. given are those of a container that
// was created for it.
func (e *Engine) secretFiles(ct containers.Container, cfg *containers.Config, given []Secret) ([]rootfs.Secret, error) {
	if len(cfg.Secrets) == 0 {
		return nil, nil
	}
	values := secretValues(given)
	if len(given) == 0 {
		var err error
		if values, err = ct.Secrets(cfg.Secrets); err != nil {
			return nil, fmt.Errorf("start: %w", err)
		}
	}
	out := make([]rootfs.Secret, 0, len(cfg.Secrets))
	for _, s := range cfg.Secrets {
		r := rootfs.Secret{
			Name: s.ID, Target: s.Target, Content: values[s.ID], Mode: s.Mode, UID: s.UID, GID: s.GID,
			Owned: e.ids.Mode != namespaces.Single,
		}
		if path.Dir(s.Target) == rootfs.SecretsDir {
			r.Name, r.Target = path.Base(s.Target), ""
		}
		out = append(out, r)
	}
	return out, nil
}
