package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nook/internal/testenv/testimage"
)

// A corpus of hostile layers, archives and layouts, generated: ways to the
// outside times kinds of entries, and ways to lie times the files of an
// archive. No case writes outside of the data root or hangs; each that is
// refused says which entry, or which part of the archive, and why.

// hostileCase is an archive, or a layout directory, and what load says of it.
type hostileCase struct {
	name string
	// want is in what is said; "": it is harmless and loads.
	want string
	// write writes an archive; into is a directory for a layout instead.
	write func(io.Writer) error
	into  func(dir string) error
}

// pathCases are names that lead out, in entries of each kind; victim is a
// directory outside.
func pathCases(victim string) (list []hostileCase) {
	up := strings.Repeat("../", 40) + strings.TrimPrefix(victim, "/")
	out := []struct{ name, path string }{
		{"dot dot", "../evil"}, {"deep", up + "/evil"}, {"after a slash", "/../evil"}, {"after a dot", "./../evil"},
		{"after a detour", "a/../../evil"}, {"after two", "a/b/../../../evil"}, {"slashes", "..//..//evil"},
		{"the parent itself", ".."}, {"dots between slashes", "./.././../evil"},
	}
	kinds := []struct {
		name  string
		entry func(path string) testimage.Entry
	}{
		{"file", func(p string) testimage.Entry { return testimage.File(p, 0o644, "evil") }},
		{"directory", func(p string) testimage.Entry { return testimage.Dir(p, 0o777) }},
		{"symlink", func(p string) testimage.Entry { return testimage.Symlink(p, victim) }},
		{"hard link", func(p string) testimage.Entry { return testimage.Link(p, "etc/passwd") }},
		{"fifo", func(p string) testimage.Entry {
			return testimage.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: p, Mode: 0o644}}
		}},
		{"device", func(p string) testimage.Entry {
			return testimage.Entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: p, Mode: 0o644, Devmajor: 1, Devminor: 3}}
		}},
		{"whiteout", func(p string) testimage.Entry {
			return testimage.File(strings.TrimSuffix(p, "evil")+".wh.evil", 0o644, "")
		}},
	}
	for _, o := range out {
		for _, k := range kinds {
			if k.name == "whiteout" && o.path == ".." {
				continue
			}
			list = append(list, layerCase(k.name+": "+o.name, "outside", k.entry(o.path)))
		}
	}
	for _, o := range out[:7] {
		list = append(list, layerCase("hard link to: "+o.name, "extract stolen", testimage.Link("stolen", o.path)))
	}
	through := []struct {
		name  string
		links []testimage.Entry
	}{
		{"an absolute symlink", []testimage.Entry{testimage.Symlink("s", victim)}},
		{"a relative symlink", []testimage.Entry{testimage.Symlink("s", up)}},
		{"two symlinks", []testimage.Entry{testimage.Symlink("r", up), testimage.Symlink("s", "r")}},
		{"a symlink over a directory", []testimage.Entry{testimage.Dir("s", 0o755), testimage.Symlink("s", victim)}},
	}
	for _, w := range through {
		for _, k := range kinds {
			list = append(list, layerCase(k.name+" through "+w.name, "", append(w.links[:len(w.links):len(w.links)], k.entry("s/evil"))...))
		}
		list = append(list, layerCase("hard link to a file through "+w.name, "in no layer", append(w.links[:len(w.links):len(w.links)], testimage.Link("stolen", "s/file"))...))
	}
	return list
}

func layerCase(name, want string, entries ...testimage.Entry) hostileCase {
	return hostileCase{name: name, want: want, write: func(w io.Writer) error {
		img := testimage.Image{Name: "hostile:1", Layers: []testimage.Layer{
			{Entries: []testimage.Entry{testimage.Dir("etc", 0o755), testimage.File("etc/passwd", 0o644, "x")}}, {Entries: entries},
		}}
		return img.WriteDocker(w)
	}}
}

// pieces are the files of an archive, to be changed.
type pieces struct {
	headers []*tar.Header
	bodies  map[string][]byte
	kept    []string // what oci leaves as it is
}

func piecesOf(write func(io.Writer) error) (*pieces, error) {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return nil, err
	}
	p := &pieces{bodies: map[string][]byte{}}
	for tr := tar.NewReader(&b); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		p.headers, p.bodies[h.Name] = append(p.headers, h), body
	}
}

func (p *pieces) put(h *tar.Header, body []byte) {
	for i, old := range p.headers {
		if old.Name == h.Name {
			p.headers = append(p.headers[:i:i], p.headers[i+1:]...)
			break
		}
	}
	p.headers, p.bodies[h.Name] = append(p.headers, h), body
}

func (p *pieces) file(name string, body []byte) {
	p.put(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body)
}

func (p *pieces) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, h := range p.headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(p.bodies[h.Name]))
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := tw.Write(p.bodies[h.Name]); err != nil {
				return err
			}
		}
	}
	return tw.Close()
}

// directory writes the files as a layout.
func (p *pieces) directory(dir string) error {
	for _, h := range p.headers {
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		var err error
		switch h.Typeflag {
		case tar.TypeReg:
			err = os.WriteFile(name, p.bodies[h.Name], 0o644)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, name)
		case tar.TypeDir:
			err = os.MkdirAll(name, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// object is JSON of a manifest, config or index.
type object = map[string]any

// oci is an OCI archive that is taken apart: change gets each of its documents
// and may return another in their place. Digests are mended up to index.json,
// so that only the lie itself is wrong.
func oci(change func(p *pieces, index, manifest, config object)) (*pieces, error) {
	img := testimage.Image{Name: "docker.io/library/hostile:1", Layers: []testimage.Layer{
		{Entries: []testimage.Entry{testimage.File("file", 0o644, "body")}},
	}}
	p, err := piecesOf(img.WriteOCI)
	if err != nil {
		return nil, err
	}
	blob := func(d any) string {
		return "blobs/sha256/" + strings.TrimPrefix(d.(object)["digest"].(string), "sha256:")
	}
	var index, manifest, config object
	if err := json.Unmarshal(p.bodies["index.json"], &index); err != nil {
		return nil, err
	}
	entry := index["manifests"].([]any)[0]
	if err := json.Unmarshal(p.bodies[blob(entry)], &manifest); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(p.bodies[blob(manifest["config"])], &config); err != nil {
		return nil, err
	}
	before := [2]object{ // what change sets itself stays
		clone(entry.(object)), clone(manifest["config"].(object)),
	}
	change(p, index, manifest, config)
	store := func(owner object, key string, at int, doc object, was object) error {
		data, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		d, ok := owner[key].(object)
		if list, isList := owner[key].([]any); isList && len(list) > at {
			d, ok = list[at].(object)
		}
		if !ok {
			return nil // it was replaced
		}
		if d["digest"] == was["digest"] {
			d["digest"] = testimage.Digest(data)
			p.file(blob(d), data)
		}
		if d["size"] == was["size"] {
			d["size"] = len(data)
		}
		return nil
	}
	if err := store(manifest, "config", 0, config, before[1]); err != nil {
		return nil, err
	}
	if err := store(index, "manifests", 0, manifest, before[0]); err != nil {
		return nil, err
	}
	if !slices.Contains(p.kept, "index.json") {
		data, err := json.Marshal(index)
		if err != nil {
			return nil, err
		}
		p.file("index.json", data)
	}
	return p, nil
}

func clone(o object) object {
	c := object{}
	for k, v := range o {
		c[k] = v
	}
	return c
}
