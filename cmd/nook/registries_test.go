package main

import (
	"context"
	"strings"
	"testing"

	"nook/engine"
	"nook/images"
)

// registries is a backend that remembers what it was asked.
type registries struct {
	fake
	name    string
	pull    engine.PullOptions
	account engine.Credential
	kept    engine.Credential
	found   bool
}

func (r *registries) Pull(_ context.Context, name string, o engine.PullOptions) ([]engine.Pulled, error) {
	r.name, r.pull = name, o
	ref, err := images.ParseReference(name)
	if err != nil {
		return nil, err
	}
	if o.Begun != nil {
		o.Begun(ref)
	}
	if o.Layer != nil {
		o.Layer("sha256:0123456789abcdef", images.LayerDownloaded)
	}
	return []engine.Pulled{{Pulled: images.Pulled{Digest: "sha256:1", Updated: true}, Ref: ref}}, nil
}

func (r *registries) Push(_ context.Context, name string, o engine.PushOptions) ([]engine.Pushed, error) {
	ref, err := images.ParseReference(name)
	if err != nil {
		return nil, err
	}
	if o.Begun != nil {
		o.Begun(ref.Repository())
	}
	return []engine.Pushed{{Pushed: images.Pushed{Digest: "sha256:1", Size: 7}, Ref: ref}}, nil
}

func (r *registries) Credentials(context.Context, string) (engine.Credential, error) {
	return r.kept, nil
}

func (r *registries) Login(_ context.Context, server string, c engine.Credential) (string, error) {
	r.name, r.account = server, c
	return "/config.json", nil
}

func (r *registries) Logout(_ context.Context, server string) (string, bool, error) {
	return server, r.found, nil
}

func TestPullSpeaksAsDocker(t *testing.T) {
	r := &registries{}
	stdout, stderr, code := typedAt(t, r, "pull", "--platform", "linux/arm64", "localhost:5000/app")
	const want = `latest: Pulling from localhost:5000/app
0123456789ab: Download complete
Digest: sha256:1
Status: Downloaded newer image for localhost:5000/app:latest
localhost:5000/app:latest
`
	if code != 0 || stdout != want || stderr != "" || r.pull.Platform != "linux/arm64" {
		t.Errorf("exit %d, stdout %q, stderr %q, options %+v", code, stdout, stderr, r.pull)
	}
	stdout, _, code = typedAt(t, r, "image", "pull", "-q", "localhost:5000/app:1")
	if code != 0 || stdout != "localhost:5000/app:1\n" {
		t.Errorf("quiet: exit %d, %q", code, stdout)
	}
}

func TestPushSpeaksAsDocker(t *testing.T) {
	stdout, stderr, code := typedAt(t, &registries{}, "push", "localhost:5000/app:1")
	const want = "The push refers to repository [localhost:5000/app]\n1: digest: sha256:1 size: 7\n"
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestLoginAsksForNothingThatItHas(t *testing.T) {
	r := &registries{}
	_, stderr, code := typedAt(t, r, "login", "-u", "me", "-p", "secret", "localhost:5000")
	if code != 0 || r.account != (engine.Credential{Username: "me", Password: "secret"}) || r.name != "localhost:5000" {
		t.Errorf("exit %d, %+v at %q", code, r.account, r.name)
	}
	if !strings.Contains(stderr, "--password-stdin is safer") || strings.Contains(stderr, "secret") {
		t.Errorf("stderr %q", stderr)
	}
	r.kept = engine.Credential{Username: "old", Password: "secret"}
	if _, stderr, code = typedAt(t, r, "login"); code != 0 || r.account != r.kept || !strings.Contains(stderr, "existing") {
		t.Errorf("exit %d, %+v, stderr %q", code, r.account, stderr)
	}
	for _, args := range []string{"login -u me", "login --password-stdin", "login -u me -p x --password-stdin"} {
		stdout, stderr, code := typedAt(t, &registries{}, strings.Fields(args)...)
		if code != 125 || stdout != "" || !strings.Contains(stderr, "hint: ") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestLogoutSaysWhetherThereWasALogin(t *testing.T) {
	if stdout, _, code := typedAt(t, &registries{found: true}, "logout", "localhost:5000"); code != 0 || stdout != "Removing login credentials for localhost:5000\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
	if stdout, _, code := typedAt(t, &registries{}, "logout", "localhost:5000"); code != 0 || stdout != "Not logged in to localhost:5000\n" {
		t.Errorf("exit %d, %q", code, stdout)
	}
}
