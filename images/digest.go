package images

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Digests are plain strings here, "sha256:" and 64 lower case hexadecimal
// digits: opencontainers/go-digest compiles a regular expression at each start
// of the program, a tenth of what the whole start may cost.

const digestPrefix = "sha256:"

// checkDigest refuses what the store can't keep; everything that becomes the
// name of a file passes through it.
func checkDigest(s string) error {
	if !strings.HasPrefix(s, digestPrefix) || !isHex(s[len(digestPrefix):], 64) {
		return fmt.Errorf("%q is not a sha256 digest", shorten(s))
	}
	return nil
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, digits+"abcdef") == ""
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, digestPrefix) }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return digestPrefix + hex.EncodeToString(sum[:])
}

// hashWriter counts and hashes what is written to it.
type hashWriter struct {
	hash hash.Hash
	size int64
}

func newHashWriter() *hashWriter { return &hashWriter{hash: sha256.New()} }

func (h *hashWriter) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	return h.hash.Write(p)
}

func (h *hashWriter) digest() string {
	return digestPrefix + hex.EncodeToString(h.hash.Sum(nil))
}

var _ io.Writer = (*hashWriter)(nil)

// chainIDs returns the chain id of each layer, the bottom one first
// (OCI image specification, config.md, "Layer ChainID").
func chainIDs(diffIDs []string) []string {
	chains := make([]string, len(diffIDs))
	for i, id := range diffIDs {
		if i == 0 {
			chains[i] = id
			continue
		}
		chains[i] = digestOf([]byte(chains[i-1] + " " + id))
	}
	return chains
}
