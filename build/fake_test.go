package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nook/build/dockerfile"
	"nook/images"
)

// fake is a Worker that keeps files as names and contents. A RUN whose command
// begins with "write NAME TEXT" writes a file; "fail" fails.
type fake struct {
	mu      sync.Mutex
	layers  map[string]map[string]string // by layer: files of the layer alone
	cache   map[string]State
	images  map[string]Base
	did     []string // Run, Copy and MakeDir, as they happened
	made    CommitSpec
	commits int
	specs   []RunSpec
	copies  []CopySpec
	// remote is a cache elsewhere; its layers' diff ids are their names, and
	// "far-" before one is how it is called before it is fetched. lost is what
	// fetching gives.
	remote  *RemoteCache
	written []CacheRecord
	fetched map[string]bool
	lost    error
	// run, when not nil, stands for the commands.
	run func(ctx context.Context, spec RunSpec, out io.Writer) error
}

func newFake() *fake {
	return &fake{
		layers: map[string]map[string]string{}, cache: map[string]State{}, fetched: map[string]bool{},
		images: map[string]Base{"docker.io/library/base:latest": {
			State: State{Layers: []string{"base"}}, Digest: "sha256:base",
			Config: &images.ImageConfig{OS: "linux", Config: images.ContainerConfig{
				Env: []string{"PATH=/bin", "LANG=C"}, Cmd: []string{"sh"}, Labels: map[string]string{"from": "base"},
			}},
		}},
	}
}

func (f *fake) note(format string, args ...any) {
	f.did = append(f.did, fmt.Sprintf(format, args...))
}

func (f *fake) Base(_ context.Context, spec BaseSpec) (Base, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ref, err := images.ParseReference(spec.Ref)
	if err != nil {
		return Base{}, err
	}
	b, ok := f.images[ref.String()]
	if !ok {
		return Base{}, fmt.Errorf("%s: %w", spec.Ref, images.ErrNotFound)
	}
	return b, nil
}

func (f *fake) files(s State) map[string]string {
	all := map[string]string{}
	for _, layer := range s.Layers {
		maps.Copy(all, f.layers[layer])
	}
	return all
}

func (f *fake) Select(_ context.Context, tree Tree, spec SelectSpec) (Selection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]string{}
	switch {
	case tree.State != nil:
		state, err := f.local(*tree.State)
		if err != nil {
			return Selection{}, err
		}
		all := f.files(state)
		for _, source := range spec.Sources {
			name := "/" + strings.Trim(source, "/")
			text, ok := all[name]
			if !ok {
				return Selection{}, fmt.Errorf("%s: %w", source, ErrNoSource)
			}
			found[name] = text
		}
	case tree.Dir != "":
		for _, source := range spec.Sources {
			names, _ := filepath.Glob(filepath.Join(tree.Dir, source))
			for _, name := range names {
				rel, _ := filepath.Rel(tree.Dir, name)
				if tree.Filter != nil {
					if verdict, _ := tree.Filter(rel, false, nil); verdict != In {
						continue
					}
				}
				data, err := os.ReadFile(name)
				if err != nil {
					data = []byte("directory")
				}
				found[rel] = string(data)
			}
			if len(found) == 0 {
				return Selection{}, fmt.Errorf("%s: %w", source, ErrNoSource)
			}
		}
	default:
		for _, file := range tree.Files {
			found[file.Name] = string(file.Data)
		}
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(h, "%q %q", name, found[name])
	}
	return Selection{Tree: tree, Spec: spec, Digest: hex.EncodeToString(h.Sum(nil)), Sources: len(found), Found: found}, nil
}

// layer puts a new layer on a state, named by what is in it and below it.
func (f *fake) layer(below State, files map[string]string) State {
	h := sha256.New()
	fmt.Fprintln(h, below.Layers)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%q %q", name, files[name])
	}
	name := hex.EncodeToString(h.Sum(nil))[:12]
	f.layers[name] = files
	return State{Layers: append(slices.Clone(below.Layers), name)}
}

func (f *fake) Copy(_ context.Context, below State, spec CopySpec) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	below, err := f.local(below)
	if err != nil {
		return State{}, err
	}
	f.copies = append(f.copies, spec)
	files := map[string]string{}
	for name, text := range spec.From.Found.(map[string]string) {
		to := spec.Dest
		if spec.ToDir {
			to = filepath.Join(spec.Dest, filepath.Base(name))
		}
		files[to] = text + spec.Chown
		f.note("copy %s", to)
	}
	return f.layer(below, files), nil
}

func (f *fake) MakeDir(_ context.Context, below State, spec DirSpec) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	below, err := f.local(below)
	if err != nil {
		return State{}, err
	}
	if _, ok := f.files(below)[spec.Path]; ok {
		return below, nil
	}
	f.note("mkdir %s", spec.Path)
	return f.layer(below, map[string]string{spec.Path: "directory of " + spec.Owner}), nil
}

func (f *fake) Run(ctx context.Context, below State, spec RunSpec, out io.Writer) (State, error) {
	f.mu.Lock()
	below, err := f.local(below)
	if err != nil {
		f.mu.Unlock()
		return State{}, err
	}
	line := spec.Args[len(spec.Args)-1]
	f.note("run %s", line)
	f.specs = append(f.specs, spec)
	f.mu.Unlock()
	if f.run != nil {
		if err := f.run(ctx, spec, out); err != nil {
			return State{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	words := strings.Fields(line)
	switch {
	case len(words) > 0 && words[0] == "fail":
		fmt.Fprintf(out, "one\ntwo\n%s\n", line)
		return State{}, &ExitError{Args: spec.Args, Code: 3}
	case len(words) > 1 && words[0] == "write":
		return f.layer(below, map[string]string{words[1]: strings.Join(words[2:], " ")}), nil
	}
	return f.layer(below, map[string]string{"/ran": line}), nil
}

func (f *fake) Lookup(key string) (State, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.cache[key]
	return s, ok
}

func (f *fake) Remember(key string, state State, _ CacheInfo) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cache[key] = state
	return nil
}

func (f *fake) Commit(_ context.Context, spec CommitSpec) (images.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if spec.State, err = f.local(spec.State); err != nil {
		return images.Image{}, err
	}
	f.made = spec
	f.commits++
	return images.Image{ID: "sha256:image", Names: spec.Names}, nil
}

func (f *fake) Save(_ context.Context, spec CommitSpec, format string, w io.Writer) (images.Image, error) {
	if _, err := f.local(spec.State); err != nil {
		return images.Image{}, err
	}
	_, err := fmt.Fprint(w, format, " of ", spec.Names)
	return images.Image{ID: "sha256:image"}, err
}

func (f *fake) Tar(_ context.Context, state State, _ Epoch, w io.Writer) error {
	_, err := fmt.Fprint(w, slices.Sorted(maps.Keys(f.files(state))))
	return err
}

func (f *fake) Local(context.Context, State, Epoch, string) error { return errors.New("not here") }

// try builds a Dockerfile with the files of a context.
// solver is one of a Dockerfile, without a context.
func (f *fake) solver(t *testing.T, text string) *solver {
	t.Helper()
	o := Options{}
	s := newSolver(f, &o)
	s.src = &source{dir: t.TempDir()}
	file, err := dockerfile.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s.plan, err = newPlan(file, &o); err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fake) try(t *testing.T, dockerfile string, files map[string]string, edit func(*Options)) (Result, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Source: Source{Context: dir, File: "-", Stdin: strings.NewReader(dockerfile)}, Temp: t.TempDir()}
	if edit != nil {
		edit(&o)
	}
	f.mu.Lock()
	f.did, f.specs, f.copies = nil, nil, nil
	f.mu.Unlock()
	return Build(t.Context(), f, o)
}

func (f *fake) ReadCache(_ context.Context, ref string) (*RemoteCache, error) {
	if f.remote == nil {
		return nil, fmt.Errorf("%s: not there", ref)
	}
	return f.remote, nil
}

func (f *fake) Stack(below State, _ *RemoteCache, step CachedStep) State {
	return State{Layers: append(slices.Clone(below.Layers), "far-"+step.DiffID)}
}

func (f *fake) Fetched(layers []string) ([]string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(layers)
	for i, layer := range out {
		id, far := strings.CutPrefix(layer, "far-")
		if far && !f.fetched[id] {
			return nil, false
		}
		out[i] = id
	}
	return out, true
}

// local is what a worker does with states that it uses.
func (f *fake) local(s State) (State, error) {
	out := State{}
	for _, layer := range s.Layers {
		id, far := strings.CutPrefix(layer, "far-")
		if far && f.lost != nil {
			return s, &LostCacheError{"far", f.lost}
		}
		if far && !f.fetched[id] {
			f.fetched[id] = true
			f.note("fetch %s", strings.Join(slices.Sorted(maps.Keys(f.layers[id])), " "))
		}
		out.Layers = append(out.Layers, id)
	}
	return out, nil
}

func (f *fake) DiffIDs(_ context.Context, layers []string, _ bool) ([]string, bool, error) {
	out := slices.Clone(layers)
	for i := range out {
		out[i] = strings.TrimPrefix(out[i], "far-")
	}
	return out, true, nil
}

func (f *fake) WriteCache(_ context.Context, _ string, records []CacheRecord, out io.Writer) error {
	f.written = records
	fmt.Fprintf(out, "sending %d steps\n", len(records))
	return nil
}
