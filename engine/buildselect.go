package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/moby/patternmatcher"

	"nook/build"
	"nook/images/layers"
)

// copyItem is one path that a COPY copies.
type copyItem struct {
	From string `json:"from"` // in the tree, without symlinks
	Name string `json:"name"` // as it was named last: what it is called in a directory
	Dir  bool   `json:"dir,omitempty"`
	// Above are the directories that --parents keeps, in the tree.
	Above []string `json:"above,omitempty"`
}

// lister is a tree that sources are looked for in.
type lister interface {
	// Real follows symlinks: see layers.Making.
	Real(unsafePath string) (string, layers.Kind, error)
	// List are the names in a directory, sorted.
	List(way string) ([]string, error)
}

// expand finds what the sources of a COPY mean.
func expand(t lister, spec build.SelectSpec) ([]copyItem, error) {
	var items []copyItem
	for _, source := range spec.Sources {
		found, err := expandOne(t, source, spec)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Join(spec.Sources, " "), build.ErrNoSource)
	}
	return items, nil
}

func expandOne(t lister, source string, spec build.SelectSpec) ([]copyItem, error) {
	kept := ""
	if spec.Parents {
		// docker: what stands before /./ is not kept.
		if before, after, found := strings.Cut(source, "/./"); found {
			kept = strings.Trim(path.Clean(before), "/")
			source = before + "/" + after
		}
	}
	clean := path.Clean(strings.TrimLeft(source, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("%s: %w", source, build.ErrOutside)
	}
	matches, err := matchPath(t, clean, spec.Literal)
	if err != nil {
		return nil, err
	}
	var items []copyItem
	for _, match := range matches {
		way, kind, err := t.Real(match)
		if err != nil {
			return nil, err
		}
		if kind == layers.Nothing {
			return nil, fmt.Errorf("%s: %w", "/"+match, build.ErrNoSource)
		}
		item := copyItem{From: way, Name: path.Base(match), Dir: kind == layers.Directory}
		if spec.Parents {
			item.Above = parentsOf(match, kept)
		}
		items = append(items, item)
	}
	return items, nil
}

// parentsOf are the directories above a path, from those that aren't kept on.
func parentsOf(name, kept string) []string {
	var dirs []string
	for dir := path.Dir(name); dir != "." && dir != kept; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

// matchPath expands wildcards, one component after the other.
func matchPath(t lister, pattern string, literal bool) ([]string, error) {
	found, wild := []string{"."}, false
	if pattern == "." {
		return found, nil
	}
	for part := range strings.SplitSeq(pattern, "/") {
		if literal || !strings.ContainsAny(part, `*?[\`) {
			var next []string
			for _, dir := range found {
				name := path.Join(dir, part)
				if wild { // not all that match have it
					if _, kind, err := t.Real(name); err != nil || kind == layers.Nothing {
						continue
					}
				}
				next = append(next, name)
			}
			found = next
			continue
		}
		wild = true
		var next []string
		for _, dir := range found {
			way, kind, err := t.Real(dir)
			if err != nil || kind != layers.Directory {
				continue // no match below it
			}
			names, err := t.List(way)
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				ok, err := path.Match(part, name)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", pattern, err)
				}
				if ok {
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	return found, nil
}

// excluder reads --exclude: patterns as of .dockerignore, relative to the
// source that a path is in, or to the tree's top.
func excluder(patterns []string, items []copyItem) (func(name string) bool, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("--exclude: %w", err)
	}
	return func(name string) bool {
		for _, item := range items {
			rest := name
			if item.From != "." {
				var in bool
				if rest, in = strings.CutPrefix(name, item.From+"/"); !in {
					if name != item.From {
						continue
					}
					rest = path.Base(name)
				}
			}
			if out, err := matcher.MatchesOrParentMatches(rest); err == nil && out {
				return true
			}
		}
		return false
	}, nil
}

// selected is what Select found; it goes to Copy with the Selection.
type selected struct {
	items []copyItem
	nodes []*node // of a context
	only  []string
}

// Select finds what the sources of a COPY mean.
func (w *worker) Select(ctx context.Context, tree build.Tree, spec build.SelectSpec) (build.Selection, error) {
	s := build.Selection{Tree: tree, Spec: spec}
	var err error
	switch {
	case tree.State != nil:
		err = w.selectState(ctx, &s)
	case tree.Dir != "":
		err = w.selectContext(ctx, &s)
	default:
		err = selectFiles(&s)
	}
	return s, err
}

// picked is what a stage finds of a state's files.
type picked struct {
	Digest  string `json:"digest"`
	Sources int    `json:"sources"`
	// Missing is a source that means nothing.
	Missing string `json:"missing,omitempty"`
}

// selectState finds files of a state, and their digest, in a stage: they may be
// other ids' alone.
func (w *worker) selectState(ctx context.Context, s *build.Selection) error {
	state, err := w.local(ctx, *s.Tree.State)
	if err != nil {
		return err
	}
	var found picked
	job := &buildJob{Do: jobPick, Layers: w.lowers(state), Copy: &buildCopy{Spec: s.Spec}}
	err = w.e.stage(ctx, request{Build: job}, func(ev event) {
		if ev.Picked != nil {
			found = *ev.Picked
		}
	})
	if err == nil && found.Missing != "" {
		err = fmt.Errorf("%s: %w", found.Missing, build.ErrNoSource)
	}
	s.Digest, s.Sources = found.Digest, found.Sources
	return err
}

// pick is a jobPick.
func (s *stageRun) pick(ctx context.Context, job *buildJob, lowers []string) error {
	tree, err := layers.OpenContents(lowers, s.req.IDs)
	if err != nil {
		return err
	}
	defer tree.Close()
	spec := job.Copy.Spec
	items, err := expand(tree, spec)
	if errors.Is(err, build.ErrNoSource) {
		missing := strings.TrimSuffix(err.Error(), ": "+build.ErrNoSource.Error())
		s.tell(event{Picked: &picked{Missing: missing}})
		return nil
	}
	if err != nil {
		return err
	}
	skip, err := excluder(spec.Exclude, items)
	if err != nil {
		return err
	}
	sum := sha256.New()
	for _, item := range items {
		fmt.Fprintf(sum, "item %q %v %q\n", item.Name, item.Dir, item.Above)
		dressed := item.Above
		if spec.Parents && item.Dir {
			dressed = append(dressed, item.From)
		}
		for _, dir := range dressed {
			if err := tree.Look(sum, dir); err != nil {
				return err
			}
		}
		if err := tree.Describe(ctx, sum, item.From, skip); err != nil {
			return err
		}
	}
	s.tell(event{Picked: &picked{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Sources: len(items)}})
	return nil
}

// selectFiles takes files that are given.
func selectFiles(s *build.Selection) error {
	sum := sha256.New()
	found := &selected{}
	for _, f := range s.Tree.Files {
		content := sha256.New()
		if f.Path != "" {
			in, err := os.Open(f.Path)
			if err != nil {
				return err
			}
			_, err = io.Copy(content, in)
			if err = errors.Join(err, in.Close()); err != nil {
				return err
			}
		} else {
			content.Write(f.Data)
		}
		fmt.Fprintf(sum, "file %q %o %x\n", f.Name, f.Mode, content.Sum(nil))
		found.items = append(found.items, copyItem{From: f.Name, Name: f.Name})
	}
	s.Found, s.Sources = found, len(found.items)
	s.Digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	return nil
}
