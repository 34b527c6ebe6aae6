package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"
)

// key stands for the files of a step: what it was made of, in full. The parts
// are joined so that no two lists give the same key.
//
//	RUN      parent, command, environment, user, directory, network, mounts by
//	         digest; not the proxies and the contents of secrets
//	COPY     parent, digest of what is copied, destination, owner, mode
//	WORKDIR  parent, path, owner
//
// Instructions that make no layer aren't in it, only what they mean to those
// that do: an ARG or a LABEL that changes costs nothing to the steps after it
// that can't see it. The parent is the state below, by the names of its layers:
// a step that was done again and wrote the same leads to what was built on it.
func key(parts ...string) string {
	h := sha256.New()
	_, _ = io.WriteString(h, keyVersion)
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// keyVersion changes when steps come to mean something else.
const keyVersion = "nook build 2\n"

func epochPart(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprint(t.Unix())
}

// stepKey is what a key is made of: strings, and States for what the step
// stands on or takes files from.
type stepKey []any

// with is the key where layers are called as names says; false where one of
// them has no name.
func (k stepKey) with(names func(layers []string) ([]string, bool)) (string, bool) {
	var parts []string
	for _, part := range k {
		switch part := part.(type) {
		case string:
			parts = append(parts, part)
		case State:
			layers, ok := names(part.Layers)
			if !ok {
				return "", false
			}
			parts = append(parts, key(append([]string{"state"}, layers...)...))
		}
	}
	return key(parts...), true
}

// local is the key in the worker's own cache, where layers have its own names.
func (k stepKey) local() string {
	text, _ := k.with(func(layers []string) ([]string, bool) { return layers, true })
	return text
}

// texts makes parts of a key of strings.
func texts(parts ...string) stepKey {
	var k stepKey
	for _, part := range parts {
		k = append(k, part)
	}
	return k
}
