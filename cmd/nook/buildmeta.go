package main

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"nook/images"
	"nook/internal/hint"
)

// buildMetadata is what --metadata-file has, under buildx's names. Of a build
// that makes no image nothing is in it.
type buildMetadata struct {
	Config     string             `json:"containerimage.config.digest,omitempty"`
	Descriptor *images.Descriptor `json:"containerimage.descriptor,omitempty"`
	Digest     string             `json:"containerimage.digest,omitempty"`
	Names      string             `json:"image.name,omitempty"` // with commas
}

// writeMetadata writes the --metadata-file; "": none.
func writeMetadata(file string, img images.Image, names []string) error {
	if file == "" {
		return nil
	}
	var meta buildMetadata
	if img.ID != "" {
		meta = buildMetadata{img.ID, &img.Manifest, img.Manifest.Digest, strings.Join(names, ",")}
	}
	data, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o666)
}

// noAttestations refuses what a build of nook doesn't make. Scripts say that
// they want none of it, as buildx makes some unasked.
func noAttestations(c *cli.Context) error {
	for _, name := range []string{"provenance", "sbom"} {
		value := c.String(name)
		if on, err := strconv.ParseBool(value); c.IsSet(name) && (err != nil || on) && value != "disabled=true" {
			return hint.Errorf("leave it out, or write --"+name+"=false", "--%s=%s is refused: nook makes no attestations", name, value)
		}
	}
	return nil
}
