package integration

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"nook/internal/testenv"
	"nook/internal/testenv/testimage"
)

// The corpus is Dockerfiles, each with what has to come of it: the config, and
// the files of the layers on top of the base. testdata/corpus/README.md tells
// how the wanted results were made.
var (
	corpusUpdate  = flag.Bool("corpus.update", false, "write what is made of the corpus as what is wanted (as root)")
	corpusBuildah = flag.Bool("corpus.buildah", false, "build the corpus with buildah, too (as root)")
)

// corpusCase is one Dockerfile.
type corpusCase struct {
	name       string
	dockerfile string
	args       []string
	why        string // buildah makes something else of it, and docker's documentation says so
	want       string
}

// readCorpus reads one file of the corpus: those of the context are written
// below dir.
//
//	-- ctx/file --        a file of the context
//	-- ctx.sh --          a script that makes more of it, started there
//	-- NAME --            a Dockerfile
//	-- NAME.args --       flags of build, a line each
//	-- NAME.why --        why buildah doesn't agree
//	-- NAME.want --       what comes of it
func readCorpus(t *testing.T, file, dir string) []corpusCase {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cases []*corpusCase
	var script string
	byName := map[string]*corpusCase{}
	for _, f := range archive.Files {
		if strings.HasPrefix(f.Name, "ctx/") {
			name := filepath.Join(dir, f.Name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, name, string(f.Data))
			continue
		}
		if f.Name == "ctx.sh" {
			script = string(f.Data)
			continue
		}
		name, kind, _ := strings.Cut(f.Name, ".")
		c := byName[name]
		if c == nil {
			c = &corpusCase{name: name}
			byName[name] = c
			cases = append(cases, c)
		}
		text := string(f.Data)
		switch kind {
		case "":
			c.dockerfile = text
		case "args":
			c.args = strings.Split(strings.TrimSpace(text), "\n")
		case "why":
			c.why = text
		case "want":
			c.want = text
		default:
			t.Fatalf("%s: %s is of no known kind", file, f.Name)
		}
	}
	cmd := exec.Command("/bin/sh", "-ec", "umask 022\n"+script)
	cmd.Dir = filepath.Join(dir, "ctx")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: ctx.sh: %v\n%s", file, err, out)
	}
	var all []corpusCase
	for _, c := range cases {
		if c.why != "" && !strings.Contains(c.why, "https://docs.docker.com/") {
			t.Errorf("%s: %s.why cites nothing of docker's documentation", file, c.name)
		}
		all = append(all, *c)
	}
	return all
}

// serveCorpus serves what ctx.sh left in "served" beside the context, its bare
// git repositories by git's own protocol.
func serveCorpus(t *testing.T, dir string) (address string) {
	t.Helper()
	served := filepath.Join(dir, "served")
	if _, err := os.Stat(served); err != nil {
		return ""
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	repositories := &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Stderr: io.Discard,
		Env: []string{
			"GIT_PROJECT_ROOT=" + served, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		},
	}
	files := http.FileServer(http.Dir(served))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, ".git/") {
			repositories.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// flags are those of build.
func (c corpusCase) flags(server string) []string {
	list := slices.Clone(c.args)
	for i := range list {
		list[i] = strings.ReplaceAll(list[i], "$SERVER", server)
	}
	return list
}

// updateCorpus puts the new results into a file of the corpus.
func updateCorpus(t *testing.T, file string, results map[string]string) {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := slices.DeleteFunc(archive.Files, func(f txtar.File) bool {
		name, isWant := strings.CutSuffix(f.Name, ".want")
		_, again := results[name]
		return isWant && again
	})
	for name, text := range results {
		at := slices.IndexFunc(files, func(f txtar.File) bool { return f.Name == name })
		for at+1 < len(files) && strings.HasPrefix(files[at+1].Name, name+".") {
			at++
		}
		files = slices.Insert(files, at+1, txtar.File{Name: name + ".want", Data: []byte(text)})
	}
	archive.Files = files
	if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestBuildCorpus(t *testing.T) {
	files, base := corpus(t)
	baseConfig, below := readArchive(t, base, nil)
	eachMode(t, func(t *testing.T, m mode) {
		switch {
		case m.name == "root" && !*corpusUpdate:
			return // what root makes is no other
		case m.name == "single": // where nothing has another owner
			files = slices.DeleteFunc(slices.Clone(files), func(f string) bool { return filepath.Base(f) != "ignore.txtar" })
		}
		for _, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
				t.Parallel()
				h := newTestHost(t, m)
				h.run(t, "nook", "load", "-q", "-i", base)
				results := map[string]string{}
				cases := readCorpus(t, file, h.dir)
				server := serveCorpus(t, h.dir)
				for _, c := range cases {
					t.Run(c.name, func(t *testing.T) {
						out := filepath.Join(h.dir, "made.tar")
						write(t, filepath.Join(h.dir, "Dockerfile"), c.dockerfile)
						args := append([]string{"build", "-q", "-f", "Dockerfile", "-o", "type=docker,dest=" + out}, c.flags(server)...)
						h.run(t, "nook", append(args, "ctx")...)
						config, tree := readArchive(t, out, below)
						got := describeResult(baseConfig, config, tree)
						results[c.name] = got
						if got != c.want && !*corpusUpdate {
							t.Errorf("got\n%s\nwant\n%s", got, c.want)
						}
					})
				}
				if m.name == "root" {
					updateCorpus(t, file, results)
				}
			})
		}
	})
}

// corpus are the files of the corpus, and an archive of its base image.
func corpus(t *testing.T) (files []string, base string) {
	t.Helper()
	testenv.Need(t, "busybox", testenv.BusyboxStatic)
	testenv.Need(t, "git", testenv.Git)
	files, err := filepath.Glob("testdata/corpus/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no corpus", err)
	}
	base = filepath.Join(shared(t), "busybox.tar")
	writeImage(t, base, func(*testimage.Image) {})
	return files, base
}

// readArchive reads config and files of a docker archive. The files of base are
// left out; those of it that are gone are told. A base of nil is none.
func readArchive(t *testing.T, name string, base map[string]string) (config map[string]any, tree map[string]string) {
	t.Helper()
	blobs := map[string][]byte{}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeSymlink {
			data = blobs[path.Join(path.Dir(h.Name), h.Linkname)]
		}
		blobs[h.Name] = data
	}
	var manifests []struct {
		Config string
		Layers []string
	}
	var image struct{ Config map[string]any }
	if err := errors.Join(json.Unmarshal(blobs["manifest.json"], &manifests), json.Unmarshal(blobs[manifests[0].Config], &image)); err != nil {
		t.Fatal(err)
	}
	tree = map[string]string{}
	for _, layer := range manifests[0].Layers {
		applyLayer(t, tree, blobs[layer])
	}
	changed := maps.Clone(tree)
	for p, line := range base {
		_, parent := tree[path.Dir(p)]
		switch got, there := tree[p]; {
		case !there && parent:
			changed[p] = "gone"
		case got == line:
			delete(changed, p)
		}
	}
	return image.Config, changed
}

// applyLayer puts the files of one layer, a line each, on a tree.
func applyLayer(t *testing.T, tree map[string]string, data []byte) {
	t.Helper()
	var r io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	}
	remove := func(dir string, self bool) {
		maps.DeleteFunc(tree, func(p, _ string) bool { return self && p == dir || strings.HasPrefix(p, dir+"/") })
	}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p := path.Join("/", h.Name)
		dir, base := path.Split(p)
		switch {
		case base == ".wh..wh..opq":
			remove(path.Clean(dir), false)
			continue
		case strings.HasPrefix(base, ".wh."):
			remove(path.Join(dir, strings.TrimPrefix(base, ".wh.")), true)
			continue
		}
		line := fmt.Sprintf("%04o %d:%d", h.Mode&0o7777, h.Uid, h.Gid)
		switch h.Typeflag {
		case tar.TypeDir:
			line = "dir " + line
		case tar.TypeSymlink:
			line = "link -> " + h.Linkname
		case tar.TypeLink:
			line = tree[path.Join("/", h.Linkname)]
		case tar.TypeReg:
			text, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			line = fmt.Sprintf("file %s %q", line, text)
			if len(text) > 200 {
				line = fmt.Sprintf("file %04o %d:%d %x", h.Mode&0o7777, h.Uid, h.Gid, sha256.Sum256(text))
			}
		}
		for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				line += fmt.Sprintf(" %s=%x", name, h.PAXRecords[key])
			}
		}
		if h.Typeflag != tar.TypeDir {
			remove(p, true)
		}
		tree[p] = line
	}
}

// describeResult is the golden text: the config's fields that aren't the
// base's, then the files.
func describeResult(base, config map[string]any, tree map[string]string) string {
	var b strings.Builder
	// What has no meaning for a container of today, and what buildah adds.
	for _, name := range []string{"Hostname", "Domainname", "Image", "ArgsEscaped", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"} {
		delete(config, name)
	}
	if labels, ok := config["Labels"].(map[string]any); ok {
		delete(labels, "io.buildah.version")
	}
	names := maps.Clone(base)
	maps.Copy(names, config)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		text, below := fieldText(config[name]), fieldText(base[name])
		if text != below {
			fmt.Fprintf(&b, "%s %s\n", name, text)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(&b, "%s %s\n", p, tree[p])
	}
	return b.String()
}

// fieldText is a field of a config; those that say nothing are all the same.
func fieldText(v any) string {
	text, _ := json.Marshal(v)
	switch string(text) {
	case "null", `""`, "[]", "{}":
		return "none"
	}
	return string(text)
}
