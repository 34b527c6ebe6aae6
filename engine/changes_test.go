package engine

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"nook/containers"
	"nook/images"
)

func TestChangesOfAConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		before  images.ContainerConfig
		changes []string
		want    images.ContainerConfig
	}{
		"an entrypoint drops CMD": {
			images.ContainerConfig{Cmd: []string{"old"}}, []string{`ENTRYPOINT ["run"]`},
			images.ContainerConfig{Entrypoint: []string{"run"}},
		},
		"but not one of the same change": {
			images.ContainerConfig{Cmd: []string{"old"}}, []string{`CMD ["new"]`, `ENTRYPOINT ["run"]`},
			images.ContainerConfig{Entrypoint: []string{"run"}, Cmd: []string{"new"}},
		},
		"the image's own shell": {
			images.ContainerConfig{Shell: []string{"/bin/ash", "-xc"}}, []string{`CMD a b`},
			images.ContainerConfig{Shell: []string{"/bin/ash", "-xc"}, Cmd: []string{"/bin/ash", "-xc", "a b"}},
		},
		"a relative working directory": {
			images.ContainerConfig{WorkingDir: "/srv"}, []string{`WORKDIR sub`},
			images.ContainerConfig{WorkingDir: "/srv/sub"},
		},
		"volumes in JSON": {
			images.ContainerConfig{}, []string{`VOLUME ["/a b", "/c"]`},
			images.ContainerConfig{Volumes: map[string]struct{}{"/a b": {}, "/c": {}}},
		},
		"a health check": {
			images.ContainerConfig{}, []string{`HEALTHCHECK --interval=5s --timeout=1m --start-period=1s --start-interval=2s --retries=4 CMD ["a", "b"]`},
			images.ContainerConfig{Healthcheck: &images.Healthcheck{
				Test: []string{"CMD", "a", "b"}, Interval: 5 * time.Second, Timeout: time.Minute,
				StartPeriod: time.Second, StartInterval: 2 * time.Second, Retries: 4,
			}},
		},
		"none": {
			images.ContainerConfig{}, []string{`HEALTHCHECK none`},
			images.ContainerConfig{Healthcheck: &images.Healthcheck{Test: []string{"NONE"}}},
		},
		"triggers": {
			images.ContainerConfig{}, []string{`ONBUILD RUN a`, `onbuild RUN b`},
			images.ContainerConfig{OnBuild: []string{"RUN a", "RUN b"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.before
			if err := changeConfig(&got, tc.changes); err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tc.want)
			}
		})
	}
	for _, change := range []string{"HEALTHCHECK CMD", "HEALTHCHECK --interval=x CMD a", "HEALTHCHECK --often CMD a", "HEALTHCHECK RUN a", "ONBUILD", "SHELL []"} {
		if err := changeConfig(&images.ContainerConfig{}, []string{change}); err == nil {
			t.Errorf("%q was taken", change)
		}
	}
}

// TestCommittedConfigHasNothingOfNooks: what nook puts into each container's
// environment is not the image's.
func TestCommittedConfigHasNothingOfNooks(t *testing.T) {
	cfg := &containers.Config{
		Hostname: "abc", TTY: true, WorkingDir: "/", Cmd: []string{"sh"}, Exposed: []string{"80/tcp"},
		Env: []string{defaultPath, "HOSTNAME=abc", "TERM=xterm", "A=1", "B=2"},
	}
	image := images.ContainerConfig{Env: []string{"A=1"}, Entrypoint: []string{"old"}, ExposedPorts: map[string]struct{}{"53/udp": {}}}
	got := containerConfig(cfg, image)
	if want := []string{"A=1", "B=2"}; !slices.Equal(got.Env, want) {
		t.Errorf("its environment is %v, want %v", got.Env, want)
	}
	if got.WorkingDir != "" || got.Entrypoint != nil || len(got.ExposedPorts) != 2 || len(image.ExposedPorts) != 1 {
		t.Errorf("got %+v of %+v", got, image)
	}
	image.Env = append(image.Env, defaultPath)
	if got := containerConfig(cfg, image); !slices.Contains(got.Env, defaultPath) {
		t.Errorf("the image's own PATH is lost: %v", got.Env)
	}
}
