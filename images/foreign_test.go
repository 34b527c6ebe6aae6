package images

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"nook/internal/hint"
)

// What a registry may have under a tag, and isn't an image that runs here, is
// called by its name.
func TestForeignMediaTypesAreNamed(t *testing.T) {
	const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	manifest := func(config, artifact, layer string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},
			"layers":[{"mediaType":%q,"digest":%q,"size":2}]}`, artifact, config, digest, layer, digest)
	}
	for _, tc := range []struct{ config, artifact, layer, want, advice string }{
		{"application/vnd.cncf.helm.config.v1+json", "", "x", "a Helm chart", ""},
		{"application/vnd.oci.empty.v1+json", "application/vnd.cyclonedx+json", "x", "a bill of materials", ""},
		{"application/vnd.oci.empty.v1+json", "", "x", `config "application/vnd.oci.empty.v1+json": this is no container image`, ""},
		{"application/vnd.wasm.config.v0+json", "", "x", "WebAssembly", ""},
		{"application/vnd.docker.plugin.v1+json", "", "x", "docker plugin", ""},
		{mediaTypeConfig, "", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "layer 1: \"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip\": the layer is foreign", "Windows"},
		{mediaTypeDockerConfig, "", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "the layer is foreign", "Windows"},
		{mediaTypeConfig, "", mediaTypeLayerGzip + "+encrypted", "the layer is encrypted", "decryption-key"},
		{mediaTypeConfig, "", mediaTypeLayer + "+xz", "no such packing", "gzip or zstd"},
		{mediaTypeConfig, "", "application/vnd.squashfs", `layer 1: "application/vnd.squashfs"`, ""},
	} {
		_, err := parseManifest([]byte(manifest(tc.config, tc.artifact, tc.layer)), mediaTypeManifest)
		if !errors.Is(err, ErrMediaType) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(hint.Of(err), tc.advice) {
			t.Errorf("%s, %s: got %v (%s), want %q (%s)", tc.config, tc.layer, err, hint.Of(err), tc.want, tc.advice)
		}
	}
}
