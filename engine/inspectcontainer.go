package engine

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nook/containers"
	"nook/containers/logs"
	"nook/rootfs"
)

// InspectContainer gives what docker inspect shows of a container; with size,
// its SizeRw and SizeRootFs too, for which its files are counted. What nook
// has no such thing of is docker's zero value or left out.
func (e *Engine) InspectContainer(ctx context.Context, nameOrID string, size bool) (*ContainerInspection, error) {
	ct, err := e.containers.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	cfg, err := ct.Config()
	if err != nil {
		return nil, err
	}
	state, err := ct.State()
	if err != nil {
		return nil, err
	}
	if state.Lost {
		state = e.settleStale(ct)
	}
	command := cfg.Command()
	in := &ContainerInspection{
		ID: cfg.ID, Created: timeText(cfg.Created), Args: []string{},
		State: inspectedState(cfg, state), Image: cfg.ImageID, LogPath: filepath.Join(ct.Path, "log"),
		Name: "/" + cfg.Name, RestartCount: state.Restarts, Driver: cfg.Rootfs, Platform: "linux",
		HostConfig: hostConfig(cfg), GraphDriver: e.graphDriver(ct, cfg, state), Mounts: e.mountPoints(cfg),
		Config: e.inspectedConfig(cfg), NetworkSettings: networkSettings(cfg, state),
	}
	if len(command) > 0 {
		in.Path, in.Args = command[0], command[1:]
	}
	if size {
		counted := []Summary{{ID: cfg.ID, ImageID: cfg.ImageID, rootfs: cfg.Rootfs}}
		if err := e.addSizes(ctx, counted); err != nil {
			return nil, err
		}
		in.SizeRw, in.SizeRootFs = &counted[0].Size, &counted[0].RootSize
	}
	return in, nil
}

// timeText is a time as docker's JSON has it; none is year 1.
func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func inspectedState(cfg *containers.Config, s containers.State) InspectedState {
	out := InspectedState{
		Status: string(s.Status), Running: s.Status.Live(), Paused: s.Status == containers.Paused,
		Restarting: s.Status == containers.Restarting, Pid: s.Pid, ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: timeText(s.Started), FinishedAt: timeText(s.Finished),
	}
	if cfg.Health != nil && s.Health != nil {
		out.Health = &InspectedHealth{s.Health.Status, s.Health.Failing, []HealthLog{}}
		for _, p := range s.Health.Log {
			out.Health.Log = append(out.Health.Log, HealthLog{p.Start, p.End, p.ExitCode, p.Output})
		}
	}
	return out
}

func (e *Engine) inspectedConfig(cfg *containers.Config) ContainerConfig {
	env, dir := e.givenBy(cfg)
	out := ContainerConfig{
		Hostname: cfg.Hostname, User: cfg.User, Tty: cfg.TTY, OpenStdin: cfg.OpenStdin, StdinOnce: cfg.StdinOnce,
		Env: env, Cmd: cfg.Cmd, Image: cfg.Image, WorkingDir: dir,
		Entrypoint: cfg.Entrypoint, Labels: cfg.Labels, StopSignal: cfg.StopSignal, StopTimeout: cfg.StopTimeout,
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	for _, m := range cfg.Mounts {
		if m.Anonymous {
			if out.Volumes == nil {
				out.Volumes = map[string]struct{}{}
			}
			out.Volumes[m.Target] = struct{}{}
		}
	}
	for _, port := range cfg.Exposed {
		if out.ExposedPorts == nil {
			out.ExposedPorts = map[string]struct{}{}
		}
		out.ExposedPorts[port] = struct{}{}
	}
	if h := cfg.Health; h != nil {
		out.Healthcheck = &InspectedHealthcheck{h.Test, h.Interval, h.Timeout, h.StartPeriod, h.StartInterval, h.Retries}
	}
	return out
}

// givenBy is the environment and working directory that the image and the
// person gave a container, without what nook added to start it: docker shows
// these. Of a container whose image is gone it is all there is.
func (e *Engine) givenBy(cfg *containers.Config) (env []string, dir string) {
	img, err := e.images.Resolve(cfg.ImageID)
	if err != nil {
		return cfg.Env, cfg.WorkingDir
	}
	image, err := e.images.Config(img)
	if err != nil {
		return cfg.Env, cfg.WorkingDir
	}
	if dir = cfg.WorkingDir; dir == "/" {
		dir = image.Config.WorkingDir
	}
	return givenEnv(cfg, image.Config.Env), dir
}

func hostConfig(cfg *containers.Config) HostConfig {
	limits := logs.DefaultLimits()
	out := HostConfig{
		LogConfig: LogConfig{"k8s-file", map[string]string{ // podman's name for this format
			"max-size": strconv.FormatInt(limits.Bytes, 10), "max-file": strconv.Itoa(limits.Files + 1),
		}},
		NetworkMode: cfg.Network, PortBindings: map[string][]PortBinding{},
		RestartPolicy: InspectedPolicy{cfg.Restart.Name, cfg.Restart.Retries}, AutoRemove: cfg.Remove,
		CgroupnsMode: "private", IpcMode: "private", ReadonlyRootfs: cfg.ReadOnly, ShmSize: shmOf(cfg),
	}
	if out.RestartPolicy.Name == "" {
		out.RestartPolicy.Name = "no"
	}
	if cfg.Init {
		out.Init = &cfg.Init
	}
	if cfg.LayerSize > 0 {
		out.StorageOpt = map[string]string{"size": strconv.FormatInt(cfg.LayerSize, 10)}
	}
	inspectedMounts(&out, cfg)
	return out
}

func (e *Engine) graphDriver(ct containers.Container, cfg *containers.Config, s containers.State) GraphDriver {
	data := map[string]string{}
	if cfg.Rootfs == string(rootfs.Overlay) || cfg.Rootfs == string(rootfs.OverlayTmpfs) {
		var lower []string
		for _, key := range cfg.Layers {
			lower = append(lower, e.layers.Dir(key))
		}
		data["LowerDir"] = strings.Join(lower, ":")
	}
	if cfg.Rootfs == string(rootfs.Overlay) { // another's is in memory
		data["UpperDir"], data["WorkDir"] = filepath.Join(ct.Path, "upper"), filepath.Join(ct.Path, "work")
	}
	if s.Pid > 0 { // the mount is in the container's own namespace
		data["MergedDir"] = fmt.Sprintf("/proc/%d/root", s.Pid)
	}
	return GraphDriver{data, cfg.Rootfs}
}

func networkSettings(cfg *containers.Config, s containers.State) NetworkSettings {
	out := NetworkSettings{Ports: map[string][]PortBinding{}, Networks: map[string]Endpoint{cfg.Network: {}}}
	if s.Pid > 0 {
		out.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", s.Pid)
	}
	return out
}
