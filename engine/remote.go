package engine

import (
	"os"
	"path/filepath"

	"nook/images"
	"nook/images/registry"
)

// What nook reads to reach registries. A person's own files come first.
//
//	$NOOK_REGISTRIES, ~/.config/nook/registries.conf, /etc/nook/registries.conf
//	~/.config/nook/certs.d, /etc/nook/certs.d, then docker's and podman's
//	$DOCKER_CONFIG/config.json, ~/.docker/config.json

// configHome is $XDG_CONFIG_HOME, or ~/.config; "" where there is no home.
func configHome() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".config")
}

func registriesFiles() []string {
	if file := os.Getenv("NOOK_REGISTRIES"); file != "" {
		return []string{file}
	}
	files := []string{"/etc/nook/registries.conf"}
	if home := configHome(); home != "" {
		files = append([]string{filepath.Join(home, "nook", "registries.conf")}, files...)
	}
	return files
}

func certDirs() []string {
	var dirs []string
	if home := configHome(); home != "" {
		for _, program := range []string{"nook", "docker", "containers"} {
			dirs = append(dirs, filepath.Join(home, program, "certs.d"))
		}
	}
	return append(dirs, "/etc/nook/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d")
}

func dockerKeys() (*registry.Keys, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return registry.NewKeys(dir), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	return registry.NewKeys(filepath.Join(home, ".docker")), nil
}

// remotes is a client for registries as this machine has them, and the
// configuration it goes by.
func remotes(keys registry.Credentials) (*registry.Client, *registry.Config, error) {
	config, err := registry.ReadConfig(registriesFiles()...)
	if err != nil {
		return nil, nil, err
	}
	if keys == nil {
		// Without a home there are no credentials, and most images need none.
		if files, err := dockerKeys(); err == nil {
			keys = files
		}
	}
	return registry.New(registry.Options{
		Config: config, Credentials: keys, CertDirs: certDirs(), UserAgent: "nook",
	}), config, nil
}

// unalias puts the full name of the registries configuration in place of a
// short one.
func unalias(config *registry.Config, name string) (images.Reference, error) {
	ref, err := images.ParseReference(name)
	if err != nil {
		return ref, err
	}
	full := config.Alias(ref.FamiliarRepository())
	if full == "" {
		return ref, nil
	}
	target, err := images.ParseReference(full)
	if err != nil {
		return ref, err
	}
	target.Tag, target.Digest = ref.Tag, ref.Digest
	return target, nil
}

// sources opens repositories that images were pulled from. Nothing is read or
// asked before the first.
func sources() (open func(images.Reference) (images.Remote, error), closeAll func()) {
	var client *registry.Client
	open = func(ref images.Reference) (images.Remote, error) {
		if client == nil {
			var err error
			if client, _, err = remotes(nil); err != nil {
				return nil, err
			}
		}
		return client.Repository(ref.Registry, ref.Path)
	}
	return open, func() {
		if client != nil {
			client.Close()
		}
	}
}
