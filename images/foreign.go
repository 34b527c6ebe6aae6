package images

import (
	"fmt"
	"strings"

	"nook/internal/hint"
)

// What registries have beside images that nook runs is refused with a word for
// what it is.

// refuseConfig is for a manifest whose config is none of an image.
func refuseConfig(mediaType, artifactType string) error {
	what := mediaType
	if mediaType == "application/vnd.oci.empty.v1+json" && artifactType != "" {
		what = artifactType // of OCI 1.1: the config says nothing
	}
	is := "this is no container image"
	for _, known := range []struct{ part, is string }{
		{"vnd.cncf.helm.", "a Helm chart: helm pull fetches it"},
		{"vnd.wasm.", "a WebAssembly module"},
		{"vnd.dev.cosign.", "a signature"},
		{"vnd.dev.sigstore.", "a signature"},
		{"spdx", "a bill of materials"},
		{"cyclonedx", "a bill of materials"},
		{"in-toto", "an attestation"},
		{"vnd.docker.plugin.", "a docker plugin"},
		{"vnd.docker.compose.", "a compose project"},
	} {
		if strings.Contains(what, known.part) {
			is += " but " + known.is
			break
		}
	}
	return fmt.Errorf("%w: config %q: %s", ErrMediaType, shorten(what), is)
}

// refuseLayer is for a layer of a type that isn't unpacked.
func refuseLayer(number int, d Descriptor) error {
	err := fmt.Errorf("%w: layer %d: %q", ErrMediaType, number, shorten(d.MediaType))
	switch {
	case isForeignLayer(d.MediaType):
		return hint.Errorf("images of Windows have such layers, and nook runs those of Linux",
			"%w: the layer is foreign: registries don't keep it, its maker gives it out elsewhere", err)
	case strings.HasSuffix(d.MediaType, "+encrypted"):
		return hint.Errorf("have it decrypted first: skopeo copy --decryption-key KEY", "%w: the layer is encrypted", err)
	case strings.HasPrefix(d.MediaType, mediaTypeLayer), strings.HasPrefix(d.MediaType, mediaTypeDockerLayer):
		return hint.Errorf("have the image packed with gzip or zstd", "%w: nook knows no such packing", err)
	}
	return err
}

// isForeignLayer: docker's and OCI's words for what need not be distributed.
func isForeignLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.") ||
		strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.")
}
