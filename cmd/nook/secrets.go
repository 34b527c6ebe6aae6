package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/engine"
	"nook/internal/hint"
)

const secretGrammar = "--secret takes id=NAME,src=FILE or id=NAME,env=VARIABLE, and target=, mode=, uid=, gid="

// readSecrets reads --secret with the files and variables that it names. No
// error tells anything of a value.
func (s *shell) readSecrets(c *cli.Context) ([]engine.Secret, error) {
	var out []engine.Secret
	for _, text := range c.StringSlice("secret") {
		secret, err := s.readSecret(text)
		if err != nil {
			return nil, err
		}
		out = append(out, secret)
	}
	return out, nil
}

// secretSource is where a secret's value comes from. As docker build has it,
// one that names neither is the variable of its id, or else the file.
type secretSource struct{ kind, file, variable string }

func (s *shell) readSecret(text string) (engine.Secret, error) {
	var secret engine.Secret
	var from secretSource
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return secret, hint.Errorf(secretGrammar, "--secret: not a list of KEY=VALUE")
	}
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if !has || value == "" {
			return secret, hint.Errorf(secretGrammar, "--secret: %q is not KEY=VALUE", key)
		}
		if err := setSecret(&secret, &from, key, value); err != nil {
			return secret, err
		}
	}
	if secret.ID == "" {
		return secret, hint.Errorf(secretGrammar, "--secret: no id")
	}
	if err := s.locate(secret.ID, &from); err != nil {
		return secret, err
	}
	if from.variable != "" {
		value, ok := s.lookup(from.variable)
		if !ok {
			return secret, hint.Errorf("export it first", "secret %s: the variable %s is not set", secret.ID, from.variable)
		}
		secret.Value = []byte(value)
		return secret, nil
	}
	if secret.Value, err = readUpTo(from.file, engine.MaxSecret+1); err != nil {
		return secret, fmt.Errorf("secret %s: %w", secret.ID, err)
	}
	return secret, nil
}

func setSecret(secret *engine.Secret, from *secretSource, key, value string) error {
	const permBits, idBits = 9, 32
	var err error
	var n uint64
	switch key {
	case "id":
		secret.ID = value
	case "src", "source":
		from.file = value
	case "target":
		secret.Target = value
	case "env":
		from.variable = value
	case "type":
		if value != "file" && value != "env" {
			err = errors.New("file and env are known")
		}
		from.kind = value
	case "mode":
		if n, err = strconv.ParseUint(value, 8, permBits); err == nil && n == 0 {
			err = errors.New("nobody could read it")
		}
		secret.Mode = uint32(n)
	case "uid":
		n, err = strconv.ParseUint(value, 10, idBits)
		secret.UID = uint32(n)
	case "gid":
		n, err = strconv.ParseUint(value, 10, idBits)
		secret.GID = uint32(n)
	default:
		return hint.Errorf(secretGrammar, "--secret: key %q is not known", key)
	}
	if err != nil {
		return hint.Errorf(secretGrammar, "--secret: invalid value %q for %s", value, key)
	}
	return nil
}

// locate finds out which of file and variable a secret is.
func (s *shell) locate(id string, from *secretSource) error {
	switch {
	case from.file != "" && from.variable != "":
		return hint.Errorf("leave one out", "secret %s: it can't be both, src and env", id)
	case from.kind == "env" && from.file != "": // docker build: src names the variable then
		from.variable, from.file = from.file, ""
	case from.kind == "file" && from.variable != "":
		return hint.Errorf("leave one out", "secret %s: type=file, and env", id)
	case from.file != "" || from.variable != "":
	case from.kind == "env":
		from.variable = id
	case from.kind == "file":
		from.file = id
	default:
		if _, ok := s.lookup(id); ok {
			from.variable = id
		} else {
			from.file = id
		}
	}
	return nil
}

// readUpTo reads a file, at most so many bytes of it.
func readUpTo(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
