package images

import "time"

// The JSON of the OCI image specification 1.1 and of docker's image manifest
// version 2, schema 2, as far as nook reads it. opencontainers/image-spec has
// the same structures, but imports go-digest: see digest.go. The tests read
// what is written here with image-spec.

const (
	mediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	mediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeConfig   = "application/vnd.oci.image.config.v1+json"

	mediaTypeLayer     = "application/vnd.oci.image.layer.v1.tar"
	mediaTypeLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	mediaTypeLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd"

	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"

	mediaTypeDockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	mediaTypeDockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	mediaTypeDockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

const (
	annotationRefName = "org.opencontainers.image.ref.name"
	// annotationContainerdName is the full name beside a ref.name that is only
	// a tag, as docker save and buildx write it.
	annotationContainerdName = "io.containerd.image.name"
	// annotationReferenceType marks what buildx puts beside images in an
	// index: attestations, with the platform unknown/unknown.
	annotationReferenceType = "vnd.docker.reference.type"

	// What the list of images shows is kept in the index, so that it is read
	// from one file.
	annotationConfig   = "nook.config"
	annotationCreated  = "nook.created"
	annotationSize     = "nook.size"
	annotationUnpacked = "nook.unpacked"
	// annotationIndex is the digest of the index that a name meant when it was
	// pulled: name@DIGEST finds the image.
	annotationIndex = "nook.index"
	// annotationSource is the repository that the image was pulled from, which
	// need not be that of its name.
	annotationSource = "nook.source"
	annotationPrefix = "nook."
)

func isIndexType(s string) bool { return s == mediaTypeIndex || s == mediaTypeDockerList }

func isManifestType(s string) bool { return s == mediaTypeManifest || s == mediaTypeDockerManifest }

func isConfigType(s string) bool { return s == mediaTypeConfig || s == mediaTypeDockerConfig }

func isLayerType(s string) bool {
	switch s {
	case mediaTypeLayer, mediaTypeLayerGzip, mediaTypeLayerZstd,
		mediaTypeDockerLayer, mediaTypeDockerLayerGzip, mediaTypeDockerLayerZstd:
		return true
	}
	return false
}

func isPlainLayer(s string) bool { return s == mediaTypeLayer || s == mediaTypeDockerLayer }

// Descriptor names a blob by its digest.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// Platform is what an image is made for, in Go's names.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

// Manifest lists the config and the layers of one image.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// index is index.json of an OCI layout, and any image index.
type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []Descriptor      `json:"manifests"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// ImageConfig is the config blob of an image: how to run it, and of which
// layers its root filesystem is made. It has docker's fields beside OCI's.
type ImageConfig struct {
	Created      *time.Time      `json:"created,omitempty"`
	Author       string          `json:"author,omitempty"`
	Architecture string          `json:"architecture"`
	Variant      string          `json:"variant,omitempty"`
	OS           string          `json:"os"`
	OSVersion    string          `json:"os.version,omitempty"`
	OSFeatures   []string        `json:"os.features,omitempty"`
	Config       ContainerConfig `json:"config"`
	RootFS       RootFS          `json:"rootfs"`
	History      []History       `json:"history,omitempty"`
}

// Platform is the part of the config that says which machine runs it.
func (c *ImageConfig) Platform() Platform {
	return Platform{
		Architecture: c.Architecture, OS: c.OS, OSVersion: c.OSVersion,
		OSFeatures: c.OSFeatures, Variant: c.Variant,
	}
}

// ContainerConfig is what a container of the image starts with.
type ContainerConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"` // "80/tcp"
	Env          []string            `json:"Env,omitempty"`          // KEY=VALUE
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	StopTimeout  *int                `json:"StopTimeout,omitempty"` // seconds
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
}

// Healthcheck is docker's HEALTHCHECK. Zero values mean docker's defaults.
type Healthcheck struct {
	// Test is {"NONE"}, {"CMD", args...} or {"CMD-SHELL", command}; empty
	// means that of the base image.
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"` // nanoseconds in JSON
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// RootFS lists the digests of the uncompressed layers, the bottom one first.
type RootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// History is one step in the making of an image.
type History struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}
