package images

import (
	"encoding/json"
	"fmt"
)

// What comes from an archive is parsed here; a value that is returned without
// an error has well-formed digests and known media types only.

// parseManifest reads an image manifest that was announced as mediaType.
func parseManifest(data []byte, mediaType string) (*Manifest, error) {
	var m struct {
		Manifest
		// A document that is a manifest to one reader and an index to another
		// is an attack (CVE-2021-41190).
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	switch {
	case m.SchemaVersion != 2:
		return nil, fmt.Errorf("%w: manifest of schema version %d; nook reads version 2",
			ErrMediaType, m.SchemaVersion)
	case m.MediaType != "" && m.MediaType != mediaType:
		return nil, fmt.Errorf("%w: the manifest says %q and what refers to it says %q",
			ErrMediaType, shorten(m.MediaType), shorten(mediaType))
	case m.Manifests != nil:
		return nil, fmt.Errorf("%w: the manifest is an index as well", ErrMediaType)
	}
	if !isConfigType(m.Config.MediaType) {
		return nil, refuseConfig(m.Config.MediaType, m.ArtifactType)
	}
	if err := checkDescriptor(m.Config); err != nil {
		return nil, fmt.Errorf("config in manifest: %w", err)
	}
	for i, l := range m.Layers {
		if !isLayerType(l.MediaType) {
			return nil, refuseLayer(i+1, l)
		}
		if err := checkDescriptor(l); err != nil {
			return nil, fmt.Errorf("layer %d in manifest: %w", i+1, err)
		}
	}
	return &m.Manifest, nil
}

func parseIndex(data []byte) (*index, error) {
	idx := new(index)
	if err := json.Unmarshal(data, idx); err != nil {
		return nil, fmt.Errorf("read image index: %w", err)
	}
	if idx.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: image index of schema version %d; nook reads version 2",
			ErrMediaType, idx.SchemaVersion)
	}
	if idx.MediaType != "" && !isIndexType(idx.MediaType) {
		return nil, fmt.Errorf("%w: image index %q", ErrMediaType, shorten(idx.MediaType))
	}
	for _, d := range idx.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, fmt.Errorf("entry in image index: %w", err)
		}
	}
	return idx, nil
}

func parseConfig(data []byte) (*ImageConfig, error) {
	cfg := new(ImageConfig)
	if err := json.Unmarshal(data, cfg); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	if cfg.RootFS.Type != "layers" {
		return nil, fmt.Errorf("%w: root filesystem of type %q in the image config",
			ErrMediaType, shorten(cfg.RootFS.Type))
	}
	for i, id := range cfg.RootFS.DiffIDs {
		if err := checkDigest(id); err != nil {
			return nil, fmt.Errorf("diff id %d in the image config: %w", i+1, err)
		}
	}
	return cfg, nil
}

func checkDescriptor(d Descriptor) error {
	if err := checkDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("%w: size %d of %s", ErrDigest, d.Size, d.Digest)
	}
	return nil
}
