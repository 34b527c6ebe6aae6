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
const keyVersion = "nook build 1\n"

func epochPart(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprint(t.Unix())
}

// key stands for the files of a state.
func (s State) key() string { return key(append([]string{"state"}, s.Layers...)...) }
