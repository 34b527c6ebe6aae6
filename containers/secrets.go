package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"nook/internal/atomicfile"
	"nook/internal/hint"
)

// Secret is what a container's record tells of a secret's file: never its
// content.
type Secret struct {
	ID     string `json:"id"`
	Target string `json:"target,omitempty"` // an absolute path; "": /run/secrets/ID
	Mode   uint32 `json:"mode"`
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
}

// ErrSecretsLost says that the values of a container's secrets aren't there.
var ErrSecretsLost = errors.New("the values of its secrets are gone")

// secretsFile holds the values, beside the record and as private as the
// container's directory.
func (c Container) secretsFile() string { return filepath.Join(c.Path, "secrets") }

// WriteSecrets keeps the values of a container's secrets, by id, for its starts.
func (c Container) WriteSecrets(values map[string][]byte) error {
	if err := atomicfile.WriteJSON(c.secretsFile(), values, 0o600, atomicfile.Durable); err != nil {
		return fmt.Errorf("container %.12s: keep its secrets: %w", c.ID, err)
	}
	return nil
}

// Secrets reads what WriteSecrets kept; ErrSecretsLost where it isn't whole.
func (c Container) Secrets(want []Secret) (map[string][]byte, error) {
	var values map[string][]byte
	err := readJSON(c.secretsFile(), &values)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("container %.12s: read its secrets: %w", c.ID, err)
	}
	for _, s := range want {
		if _, ok := values[s.ID]; !ok {
			return nil, hint.Errorf("remove it and create it again", "container %.12s: %w", c.ID, ErrSecretsLost)
		}
	}
	return values, nil
}
