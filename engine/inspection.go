package engine

import "time"

// The shape of docker's container inspect (container.InspectResponse of its
// API), in its order. What nook knows nothing of is left out, but for what
// people's templates ask for: there it is docker's zero value.

// ContainerInspection is what docker inspect shows of a container.
type ContainerInspection struct {
	ID              string `json:"Id"`
	Created         string // RFC 3339
	Path            string // of the entrypoint
	Args            []string
	State           InspectedState
	Image           string // digest of its config
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string // with a slash before it
	RestartCount    int
	Driver          string // rootfs.Kind
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	ExecIDs         []string
	HostConfig      HostConfig
	GraphDriver     GraphDriver
	SizeRw          *int64 `json:",omitempty"` // bytes
	SizeRootFs      *int64 `json:",omitempty"` // bytes
	Mounts          []MountPoint
	Config          ContainerConfig
	NetworkSettings NetworkSettings
}

// InspectedState is docker's State.
type InspectedState struct {
	Status     string
	Running    bool // also when paused, and between two runs
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int // on the host
	ExitCode   int
	Error      string
	StartedAt  string // RFC 3339; year 1: never
	FinishedAt string
	Health     *InspectedHealth `json:",omitempty"`
}

// InspectedHealth is docker's Health.
type InspectedHealth struct {
	Status        string
	FailingStreak int
	Log           []HealthLog
}

// HealthLog is one run of a health check.
type HealthLog struct {
	Start, End time.Time
	ExitCode   int
	Output     string
}

// HostConfig is what was asked for about the host.
type HostConfig struct {
	Binds           []string
	Mounts          []InspectedMount `json:",omitempty"`
	ContainerIDFile string
	LogConfig       LogConfig
	NetworkMode     string
	PortBindings    map[string][]PortBinding
	RestartPolicy   InspectedPolicy
	AutoRemove      bool
	VolumeDriver    string
	VolumesFrom     []string
	CapAdd          []string
	CapDrop         []string
	CgroupnsMode    string
	DNS             []string `json:"Dns"`
	ExtraHosts      []string
	GroupAdd        []string
	IpcMode         string
	PidMode         string
	Privileged      bool
	PublishAllPorts bool
	ReadonlyRootfs  bool
	SecurityOpt     []string
	Tmpfs           map[string]string `json:",omitempty"`
	UTSMode         string
	UsernsMode      string
	ShmSize         int64             // bytes
	StorageOpt      map[string]string `json:",omitempty"`
	Init            *bool             `json:",omitempty"`
	Memory          int64
	NanoCpus        int64
	PidsLimit       *int64
}

// InspectedMount is a mount as --mount asked for it.
type InspectedMount struct {
	Type     string
	Source   string `json:",omitempty"`
	Target   string
	ReadOnly bool `json:",omitempty"`
}

// LogConfig says how the output is kept.
type LogConfig struct {
	Type   string
	Config map[string]string
}

// PortBinding is a published port.
type PortBinding struct{ HostIP, HostPort string }

// InspectedPolicy is docker's RestartPolicy.
type InspectedPolicy struct {
	Name              string
	MaximumRetryCount int
}

// GraphDriver is where the files are.
type GraphDriver struct {
	Data map[string]string
	Name string
}

// MountPoint is a mount as the container has it.
type MountPoint struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

// ContainerConfig is what the image and the person said, merged.
type ContainerConfig struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *InspectedHealthcheck `json:",omitempty"`
	Image        string                // as it was typed
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	StopSignal   string `json:",omitempty"`
	StopTimeout  *int   `json:",omitempty"` // seconds
}

// InspectedHealthcheck is docker's HEALTHCHECK; its JSON has nanoseconds.
type InspectedHealthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// NetworkSettings is what the container has of networks.
type NetworkSettings struct {
	SandboxKey  string // the network namespace
	Ports       map[string][]PortBinding
	Gateway     string
	IPAddress   string
	IPPrefixLen int
	MacAddress  string
	Networks    map[string]Endpoint
}

// Endpoint is the container's part of a network.
type Endpoint struct {
	Gateway     string
	IPAddress   string
	IPPrefixLen int
	MacAddress  string
	DNSNames    []string
}
