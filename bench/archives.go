package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"nook/internal/testenv/testimage"
)

// writeArchive writes an image as docker save of docker before 25 did. Its
// layers are tar files, which are as large as they like: nothing is kept in
// memory.
func writeArchive(name, image string, layers []string) (err error) {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	a := archiveWriter{tar.NewWriter(out)}
	var diffIDs, names []string
	for i, layer := range layers {
		digest, err := a.putLayer(fmt.Sprintf("%d/layer.tar", i+1), layer)
		if err != nil {
			return err
		}
		diffIDs, names = append(diffIDs, digest), append(names, fmt.Sprintf("%d/layer.tar", i+1))
	}
	config, err := json.Marshal(map[string]any{
		"created": testimage.Epoch, "architecture": runtime.GOARCH, "os": "linux",
		"config": testimage.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{image}, "Layers": names}})
	if err != nil {
		return err
	}
	return errors.Join(a.put("config.json", config), a.put("manifest.json", manifest), a.tar.Close())
}

type archiveWriter struct{ tar *tar.Writer }

func (a archiveWriter) put(name string, body []byte) error {
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: testimage.Epoch}); err != nil {
		return err
	}
	_, err := a.tar.Write(body)
	return err
}

// putLayer copies a layer into an archive and returns its diff id.
func (a archiveWriter) putLayer(name, layer string) (digest string, err error) {
	f, err := os.Open(layer)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: info.Size(), ModTime: testimage.Epoch}); err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(a.tar, sum), f)
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), err
}

// splitTar makes n layers of a tar, each with about as many bytes, and with the
// directories that its files are in, as the layers of a build have them.
func splitTar(name, dir string, n int) (layers []string, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	in, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s := splitter{dir: dir, each: info.Size()/int64(n) + 1, dirs: map[string]*tar.Header{}, in: map[string]int{}}
	defer func() { err = errors.Join(err, s.close()) }()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := s.put(h, r); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	return s.names, nil
}

type splitter struct {
	dir   string
	each  int64
	names []string
	files []*os.File
	tars  []*tar.Writer
	bytes int64                  // of this layer
	dirs  map[string]*tar.Header // all of them
	have  map[string]bool        // those that this layer has
	in    map[string]int         // a file's layer
}

// put writes an entry to the layer that is filled now; a hard link stays with
// its file.
func (s *splitter) put(h *tar.Header, body io.Reader) error {
	if len(s.tars) == 0 || s.bytes >= s.each {
		name := filepath.Join(s.dir, fmt.Sprintf("layer-%d.tar", len(s.tars)+1))
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		s.names, s.files, s.tars = append(s.names, name), append(s.files, f), append(s.tars, tar.NewWriter(f))
		s.bytes, s.have = 0, map[string]bool{}
	}
	clean := path.Clean(h.Name)
	if h.Typeflag == tar.TypeDir {
		s.dirs[clean] = h
		return nil // it comes with what is in it
	}
	at := len(s.tars) - 1
	if h.Typeflag == tar.TypeLink {
		return s.tars[s.in[path.Clean(h.Linkname)]].WriteHeader(h)
	}
	s.in[clean] = at
	if err := s.above(s.tars[at], path.Dir(clean)); err != nil {
		return err
	}
	if err := s.tars[at].WriteHeader(h); err != nil {
		return err
	}
	s.bytes += h.Size + 512
	_, err := io.Copy(s.tars[at], body)
	return err
}

func (s *splitter) above(t *tar.Writer, dir string) error {
	if s.have[dir] || s.dirs[dir] == nil {
		return nil
	}
	s.have[dir] = true
	if strings.Contains(dir, "/") {
		if err := s.above(t, path.Dir(dir)); err != nil {
			return err
		}
	}
	return t.WriteHeader(s.dirs[dir])
}

func (s *splitter) close() (err error) {
	for i := range s.tars {
		err = errors.Join(err, s.tars[i].Close(), s.files[i].Close())
	}
	return err
}
