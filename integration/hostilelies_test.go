package integration

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// ociLie changes one thing of an OCI layout.
type ociLie struct {
	name, want string
	change     func(p *pieces, index, manifest, config object)
}

func first(list any) object { return list.([]any)[0].(object) }

// descriptorLies are the same for each descriptor of a layout.
func descriptorLies() []ociLie {
	of := []struct {
		name string
		in   func(index, manifest object) object
	}{
		{"manifest", func(index, _ object) object { return first(index["manifests"]) }},
		{"config", func(_, manifest object) object { return manifest["config"].(object) }},
		{"layer", func(_, manifest object) object { return first(manifest["layers"]) }},
	}
	ways := []struct {
		name, want string
		set        func(d object)
	}{
		{"a digest to the outside", "is not a sha256 digest", func(d object) { d["digest"] = "sha256:../../../../../../etc/passwd" }},
		{"a digest of capitals", "is not a sha256 digest", func(d object) { d["digest"] = "sha256:" + strings.Repeat("A", 64) }},
		{"a digest of another kind", "is not a sha256 digest", func(d object) { d["digest"] = "md5:" + strings.Repeat("a", 32) }},
		{"a digest that is cut", "is not a sha256 digest", func(d object) { d["digest"] = "sha256:" + strings.Repeat("a", 63) }},
		{"no digest", "is not a sha256 digest", func(d object) { d["digest"] = "" }},
		{"a digest of nothing here", "the archive lacks", func(d object) { d["digest"] = "sha256:" + strings.Repeat("a", 64) }},
		{"a size too large", "bytes and should have", func(d object) { d["size"] = 1 << 40 }},
		{"a size too small", "bytes and should have", func(d object) { d["size"] = 1 }},
		{"a negative size", "size", func(d object) { d["size"] = -1 }},
		{"a foreign media type", "unknown media type", func(d object) { d["mediaType"] = "application/x-evil" }},
		{"a media type that is a list", "json", func(d object) { d["mediaType"] = []string{"x"} }},
	}
	var list []ociLie
	for _, o := range of {
		for _, w := range ways {
			list = append(list, ociLie{o.name + ": " + w.name, w.want, func(_ *pieces, index, manifest, _ object) { w.set(o.in(index, manifest)) }})
		}
	}
	return list
}

func documentLies() []ociLie {
	plain := func(name, want string, change func(index, manifest, config object)) ociLie {
		return ociLie{name, want, func(_ *pieces, i, m, c object) { change(i, m, c) }}
	}
	// A diff id of its own, that the store doesn't have.
	layer := func(p *pieces, m, c object, mediaType string, body []byte) {
		c["rootfs"] = object{"type": "layers", "diff_ids": []string{testimage.Digest(append([]byte("of another"), body...))}}
		d := object{"mediaType": mediaType, "digest": testimage.Digest(body), "size": len(body)}
		p.file("blobs/"+strings.Replace(testimage.Digest(body), ":", "/", 1), body)
		m["layers"] = []any{d}
	}
	const plainType = "application/vnd.oci.image.layer.v1.tar"
	nested := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	return []ociLie{
		plain("no layers but diff ids", "0 layers, the config 1 diff ids", func(_, m, _ object) { m["layers"] = []any{} }),
		plain("a layer more than diff ids", "2 layers, the config 1 diff ids", func(_, m, _ object) { m["layers"] = append(m["layers"].([]any), first(m["layers"])) }),
		plain("another diff id", "the config says diff id", func(_, _, c object) {
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{"sha256:" + strings.Repeat("a", 64)}}
		}),
		plain("a diff id to the outside", "digest", func(_, _, c object) {
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{"sha256:../../evil"}}
		}),
		plain("diff ids that are numbers", "json", func(_, _, c object) { c["rootfs"] = object{"type": "layers", "diff_ids": []int{1}} }),
		plain("a config of another type", "unknown media type", func(_, m, _ object) { m["config"].(object)["mediaType"] = "application/vnd.cncf.helm.config.v1+json" }),
		plain("a manifest of version 1", "schema version 1", func(i, m, _ object) { m["schemaVersion"] = 1 }),
		plain("a name that is none", "image name", func(i, _, _ object) {
			first(i["manifests"])["annotations"] = object{"org.opencontainers.image.ref.name": "../../evil:x"}
		}),
		plain("a name with a line end", "image name", func(i, _, _ object) {
			first(i["manifests"])["annotations"] = object{"io.containerd.image.name": "a:b\nroot::0:0"}
		}),
		plain("a name of a megabyte", "image name", func(i, _, _ object) {
			first(i["manifests"])["annotations"] = object{"io.containerd.image.name": "x/" + strings.Repeat("a", 1<<20)}
		}),
		plain("no manifests", "lists no image", func(i, _, _ object) { i["manifests"] = []any{} }),
		plain("manifests that are an object", "json", func(i, _, _ object) { i["manifests"] = object{} }),
		plain("a thousand manifests", "more than 1000 images", func(i, _, _ object) {
			one := first(i["manifests"])
			var many []any
			for range 1100 {
				c := clone(one)
				c["annotations"], c["platform"] = nil, object{"os": "linux", "architecture": "amd64"}
				many = append(many, c)
			}
			i["manifests"] = many
		}),
		plain("an environment with a NUL", "", func(_, _, c object) { c["config"] = object{"Env": []string{"A=\x00"}} }),
		{"an index that is no JSON", "image index", func(p *pieces, _, _, _ object) { p.replace("index.json", []byte("{")) }},
		{"an index that nests deep", "image index", func(p *pieces, _, _, _ object) { p.replace("index.json", []byte(nested)) }},
		{"an index of 9 MiB", "larger than 8 MiB", func(p *pieces, _, _, _ object) { p.replace("index.json", bytes.Repeat([]byte(" "), 9<<20)) }},
		{"a layout of another version", "OCI layout of version", func(p *pieces, _, _, _ object) { p.file("oci-layout", []byte(`{"imageLayoutVersion":"9.0.0"}`)) }},
		{"a layout file that is none", "oci-layout", func(p *pieces, _, _, _ object) { p.file("oci-layout", []byte("[")) }},
		{"a layer that is text", "layer 1", func(p *pieces, _, m, c object) {
			body := []byte(strings.Repeat("no tar\n", 100))
			layer(p, m, c, plainType, body)
			c["rootfs"] = object{"type": "layers", "diff_ids": []string{testimage.Digest(body)}}
		}},
		{"a layer that says gzip and is none", "layer 1", func(p *pieces, _, m, c object) { layer(p, m, c, plainType+"+gzip", []byte("\x1f\x8bnot at all")) }},
		{"a layer of zstd that is cut", "layer 1", func(p *pieces, _, m, c object) { layer(p, m, c, plainType+"+zstd", []byte("\x28\xb5\x2f\xfd\x00")) }},
		{"a layer whose gzip ends early", "layer 1", func(p *pieces, _, m, c object) {
			packed, _ := testimage.Compress(testimage.Gzip, bytes.Repeat([]byte("x"), 1<<16))
			layer(p, m, c, plainType+"+gzip", packed[:len(packed)-9])
		}},
		{"a layer of a thousand times its size", "layer 1", func(p *pieces, _, m, c object) {
			packed, _ := testimage.Compress(testimage.Gzip, make([]byte, 32<<20))
			layer(p, m, c, plainType+"+gzip", packed)
		}},
		{"another layer under a diff id that is unpacked", "the layer's content has the digest", func(p *pieces, _, m, c object) {
			ids := c["rootfs"]
			stream, _ := testimage.Layer{Entries: []testimage.Entry{testimage.File("evil", 0o4755, "body")}}.Tar()
			packed, _ := testimage.Compress(testimage.Gzip, stream)
			layer(p, m, c, plainType+"+gzip", packed)
			c["rootfs"] = ids
		}},
		{"a layer of xz", "unknown media type", func(p *pieces, _, m, c object) { layer(p, m, c, plainType+"+xz", []byte("\xfd7zXZ\x00")) }},
		{"an index in an index, five deep", "nest deeper than 4", func(p *pieces, i, _, _ object) {
			below := any(clone(first(i["manifests"])))
			for range 5 {
				data, _ := json.Marshal(object{"schemaVersion": 2, "manifests": []any{below}})
				p.file("blobs/"+strings.Replace(testimage.Digest(data), ":", "/", 1), data)
				below = object{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": testimage.Digest(data), "size": len(data)}
			}
			i["manifests"] = []any{below}
		}},
	}
}

// replace makes a file what the archive's own wouldn't become: its header is
// named so that it stays as it is.
func (p *pieces) replace(name string, body []byte) {
	p.kept = append(p.kept, name)
	p.file(name, body)
}

// dockerLies change what docker's manifest.json says, or the tar itself.
func dockerLies(victim string) (list []hostileCase) {
	entry := func(config string, layers ...string) []byte {
		data, _ := json.Marshal([]object{{"Config": config, "RepoTags": []string{"hostile:1"}, "Layers": layers}})
		return data
	}
	secret := filepath.Join(victim, "file")
	add := func(name, want string, change func(p *pieces, config, layer string)) {
		list = append(list, hostileCase{name: "docker: " + name, want: want, write: func(w io.Writer) error {
			img := testimage.Image{Name: "hostile:1", Layers: []testimage.Layer{{Entries: []testimage.Entry{testimage.File("file", 0o644, "body")}}}}
			p, err := piecesOf(img.WriteDocker)
			if err != nil {
				return err
			}
			var config, layer string
			for _, h := range p.headers {
				switch {
				case strings.HasSuffix(h.Name, "layer.tar"):
					layer = h.Name
				case strings.HasSuffix(h.Name, ".json") && h.Name != "manifest.json":
					config = h.Name
				}
			}
			change(p, config, layer)
			return p.write(w)
		}})
	}
	link := func(name, to string, kind byte) *tar.Header {
		return &tar.Header{Typeflag: kind, Name: name, Linkname: to}
	}
	add("a config outside", "lacks the config", func(p *pieces, _, layer string) { p.file("manifest.json", entry(secret, layer)) })
	add("a config above", "lacks the config", func(p *pieces, _, layer string) { p.file("manifest.json", entry("../../../"+secret, layer)) })
	add("a layer outside", "lacks the layer", func(p *pieces, config, _ string) { p.file("manifest.json", entry(config, secret)) })
	add("a config that is a symlink to outside", "lacks the config", func(p *pieces, config, _ string) { p.put(link(config, secret, tar.TypeSymlink), nil) })
	add("a layer that is a symlink to outside", "lacks the layer", func(p *pieces, _, layer string) { p.put(link(layer, secret, tar.TypeSymlink), nil) })
	add("a layer that is a hard link to outside", "lacks the layer", func(p *pieces, _, layer string) { p.put(link(layer, secret, tar.TypeLink), nil) })
	add("links in a circle", "lacks the layer", func(p *pieces, _, layer string) {
		p.put(link(layer, "/a", tar.TypeSymlink), nil)
		p.put(link("a", "/b", tar.TypeSymlink), nil)
		p.put(link("b", "/a", tar.TypeSymlink), nil)
	})
	add("a manifest that is a symlink to outside", "not an image archive", func(p *pieces, _, _ string) { p.put(link("manifest.json", secret, tar.TypeSymlink), nil) })
	add("a manifest that is a fifo", "not an image archive", func(p *pieces, _, _ string) { p.put(link("manifest.json", "", tar.TypeFifo), nil) })
	add("a manifest that is a directory", "not an image archive", func(p *pieces, _, _ string) { p.put(link("manifest.json", "", tar.TypeDir), nil) })
	add("a manifest that is an object", "manifest.json", func(p *pieces, _, _ string) { p.file("manifest.json", []byte("{}")) })
	add("a manifest of nothing", "lists no image", func(p *pieces, _, _ string) { p.file("manifest.json", []byte("[]")) })
	add("a manifest of null", "lists no image", func(p *pieces, _, _ string) { p.file("manifest.json", []byte("null")) })
	add("no layers", "layers", func(p *pieces, config, _ string) { p.file("manifest.json", entry(config)) })
	add("a layer twice", "2 layers, the config 1", func(p *pieces, config, layer string) { p.file("manifest.json", entry(config, layer, layer)) })
	add("the config as a layer", "layer 1", func(p *pieces, config, _ string) { p.file("manifest.json", entry(config, config)) })
	add("a tag that is none", "image name", func(p *pieces, config, layer string) {
		p.file("manifest.json", bytes.Replace(entry(config, layer), []byte("hostile:1"), []byte("../../evil:1"), 1))
	})
	add("an absolute name in the archive", "", func(p *pieces, _, _ string) { p.file(filepath.Join(victim, "new"), []byte("evil")) })
	add("a name above the archive", "", func(p *pieces, _, _ string) {
		p.file(strings.Repeat("../", 40)+strings.TrimPrefix(victim, "/")+"/new", []byte("evil"))
	})
	add("a directory that is a symlink to outside", "", func(p *pieces, _, _ string) {
		p.put(link("out", victim, tar.TypeSymlink), nil)
		p.file("out/new", []byte("evil"))
	})
	add("a name over 4096 bytes", "longer than 4096 bytes", func(p *pieces, _, _ string) { p.file(strings.Repeat("n", 5000), nil) })
	return list
}

// TestHostileCorpus loads them all into one store a mode, which stays whole.
func TestHostileCorpus(t *testing.T) {
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	eachMode(t, func(t *testing.T, m mode) {
		h := newTestHost(t, m)
		victim := filepath.Join(h.dir, "victim")
		write(t, filepath.Join(victim, "file"), "precious")
		cases := append(pathCases(victim), dockerLies(victim)...)
		for _, lie := range append(descriptorLies(), documentLies()...) {
			cases = append(cases, hostileCase{name: "archive: " + lie.name, want: lie.want, write: func(w io.Writer) error {
				p, err := oci(lie.change)
				if err != nil {
					return err
				}
				return p.write(w)
			}}, hostileCase{name: "layout: " + lie.name, want: lie.want, into: func(dir string) error {
				p, err := oci(lie.change)
				if err != nil {
					return err
				}
				return p.directory(dir)
			}})
		}
		if len(cases) < 100 {
			t.Fatalf("%d cases", len(cases))
		}
		t.Logf("%d cases", len(cases))
		tryCase(t, h, hostileCase{name: "the truth", into: func(dir string) error {
			p, err := oci(func(*pieces, object, object, object) {})
			if err != nil {
				return err
			}
			return p.directory(dir)
		}})
		for i, tc := range cases {
			if (testing.Short() || m.name == "root") && i%4 != 0 {
				continue // they cost 60 ms each
			}
			t.Run(tc.name, func(t *testing.T) { tryCase(t, h, tc) })
		}
		if said, code := h.answer(t, "nook", "system", "check"); code != 0 {
			t.Errorf("system check exits with %d: %s", code, said)
		}
		if err := os.RemoveAll(filepath.Join(h.dir, "input")); err != nil {
			t.Error(err)
		}
	})
}

func tryCase(t *testing.T, h *host, tc hostileCase) {
	t.Helper()
	input := filepath.Join(h.dir, "input")
	if err := os.RemoveAll(input); err != nil {
		t.Fatal(err)
	}
	var err error
	if tc.into != nil {
		err = tc.into(input)
	} else {
		var b bytes.Buffer
		if err = tc.write(&b); err == nil {
			err = os.WriteFile(input, b.Bytes(), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	before := outside(t, h)
	said, code := h.answer(t, "timeout", "60", filepath.Join(h.bin, "nook"), "load", "-i", input)
	if after := outside(t, h); after != before {
		t.Errorf("outside of the data root:\n%s\nwas\n%s", after, before)
	}
	switch {
	case code == 0 && tc.want == "":
	case code != 125 || tc.want == "":
		t.Errorf("exit code %d, it said %q; want %q", code, said, tc.want)
	case !strings.HasPrefix(said, "nook: load "+input+": ") || !strings.Contains(said, tc.want) || strings.Count(said, "\n") > 2:
		t.Errorf("it said %q, want a fact with %q and at most a hint", said, tc.want)
	}
}
