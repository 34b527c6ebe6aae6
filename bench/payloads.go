package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"nook/internal/testenv"
)

// payload is an image that is pulled and loaded.
type payload struct {
	name    string
	archive string  // what docker save writes, its layers not packed
	bar     float64 // how many times faster than podman it is to be
	what    string  // its layers and size
}

// manyLayers is how many that image has whose layers are many.
const manyLayers = 40

func (s settings) payloadDir() string { return filepath.Join(s.own(), "payloads") }

// payloads makes the images, unless an earlier part did. Their trees are those
// that the tests make with mmdebstrap, and keep.
func payloads(s settings) ([]payload, error) {
	debian, err := testenv.DebianTar()
	if err != nil {
		return nil, err
	}
	nginx, err := testenv.NginxTar()
	if err != nil {
		return nil, err
	}
	postgres, err := testenv.PostgresTar()
	if err != nil {
		return nil, err
	}
	dir := s.payloadDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	list := []payload{
		{name: "debian", bar: 2}, {name: "nginx", bar: 2}, {name: "postgres", bar: 2},
		{name: fmt.Sprintf("debian-%d", manyLayers), bar: 3},
	}
	for i, tree := range []string{debian, nginx, postgres, debian} {
		p := &list[i]
		info, err := os.Stat(tree)
		if err != nil {
			return nil, err
		}
		p.archive = filepath.Join(dir, p.name+".tar")
		layers := 1
		if p.bar == 3 {
			layers = manyLayers
		}
		p.what = fmt.Sprintf("%d of %d MB", layers, info.Size()/1e6)
		if _, err := os.Stat(p.archive); err == nil {
			continue
		}
		if err := makePayload(*p, tree, layers); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func makePayload(p payload, tree string, layers int) error {
	dir := p.archive + ".layers"
	defer func() { _ = os.RemoveAll(dir) }()
	trees := []string{tree}
	if layers > 1 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		var err error
		if trees, err = splitTar(tree, dir, layers); err != nil {
			return err
		}
	}
	return writeArchive(p.archive, p.name+":1", trees)
}

// source is Debian's registry on loopback with the payloads in it.
type source struct{ *testenv.Registry }

func (s source) ref(p payload) string { return s.Host + "/" + p.name + ":1" }

// openRegistry starts the registry; what an earlier part put into it is there.
func openRegistry(s settings, list []payload) (source, error) {
	for _, program := range []string{"docker-registry", "skopeo"} {
		if _, err := exec.LookPath(program); err != nil {
			return source{}, err
		}
	}
	dir := filepath.Join(s.own(), "registry")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return source{}, err
	}
	r, err := testenv.StartRegistry(dir, testenv.RegistryOptions{})
	if err != nil {
		return source{}, err
	}
	src := source{r}
	for _, p := range list {
		if _, err := os.Stat(filepath.Join(dir, "storage/docker/registry/v2/repositories", p.name, "_manifests/tags")); err == nil {
			continue
		}
		err := patiently(exec.Command("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false",
			"docker-archive:"+p.archive, "docker://"+src.ref(p)))
		if err != nil {
			r.Stop()
			return source{}, err
		}
	}
	return src, nil
}
