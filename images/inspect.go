package images

import (
	"slices"
	"time"
)

// Inspection is what docker image inspect shows of an image.
type Inspection struct {
	ID           string   `json:"Id"`
	RepoTags     []string // busybox:latest
	RepoDigests  []string // busybox@sha256:…
	Comment      string
	Created      string // RFC 3339; "" when the image doesn't say
	Author       string
	Config       InspectedConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	OsVersion    string `json:",omitempty"`
	// Size is in bytes: unpacked if that is known, else as stored.
	Size        int64
	RootFS      InspectedRootFS
	Descriptor  Descriptor
	Annotations map[string]string `json:",omitempty"`
	History     []History
}

// InspectedConfig is ContainerConfig in docker's order, with what is unset
// shown as null or "", as docker does: a template may ask for any of it.
type InspectedConfig struct {
	User         string
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string
	Cmd          []string
	Healthcheck  *Healthcheck `json:",omitempty"`
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string   `json:",omitempty"`
	StopTimeout  *int     `json:",omitempty"`
	Shell        []string `json:",omitempty"`
}

// InspectedRootFS lists the diff ids.
type InspectedRootFS struct {
	Type   string
	Layers []string
}

// Inspect reads what docker image inspect shows.
func (s *Store) Inspect(img Image) (*Inspection, error) {
	cfg, err := s.Config(img)
	if err != nil {
		return nil, err
	}
	c := cfg.Config
	in := &Inspection{
		ID: img.ID, Author: cfg.Author,
		Architecture: cfg.Architecture, Variant: cfg.Variant, Os: cfg.OS, OsVersion: cfg.OSVersion,
		Size: img.Size, RootFS: InspectedRootFS{cfg.RootFS.Type, cfg.RootFS.DiffIDs},
		Descriptor: img.Manifest, Annotations: img.Annotations, History: cfg.History,
		Config: InspectedConfig{
			User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Cmd: c.Cmd, Healthcheck: c.Healthcheck,
			Volumes: c.Volumes, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, OnBuild: c.OnBuild,
			Labels: c.Labels, StopSignal: c.StopSignal, StopTimeout: c.StopTimeout, Shell: c.Shell,
		},
	}
	if img.UnpackedSize > 0 {
		in.Size = img.UnpackedSize
	}
	if cfg.Created != nil {
		in.Created = cfg.Created.UTC().Format(time.RFC3339Nano)
	}
	if n := len(cfg.History); n > 0 {
		in.Comment = cfg.History[n-1].Comment
	}
	in.RepoTags, in.RepoDigests = repoNames(img)
	return in, nil
}

func repoNames(img Image) (tags, repoDigests []string) {
	tags, repoDigests = []string{}, []string{}
	seen := make(map[string]bool)
	for _, name := range img.Names {
		ref, err := ParseReference(name)
		if err != nil {
			continue
		}
		if ref.Digest == "" {
			tags = append(tags, ref.FamiliarTagged())
		}
		// The index that was pulled goes first: it is what others pull.
		for _, digest := range append(slices.Clone(img.Indexes), img.Manifest.Digest) {
			repoDigest := ref.FamiliarRepository() + "@" + digest
			if !seen[repoDigest] {
				seen[repoDigest] = true
				repoDigests = append(repoDigests, repoDigest)
			}
		}
	}
	return tags, repoDigests
}
