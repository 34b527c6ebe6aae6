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
	"slices"
	"strings"

	"nook/build"
	"nook/images/layers"
)

// copyItem is one path that a COPY copies.
type copyItem struct {
	From string // in the tree, without symlinks
	Name string // as it was named last: what it is called in a directory
	Dir  bool
	// Above are the directories that --parents keeps, in the tree, and Pivot the
	// one that they are in.
	Above []string
	Pivot string
}

// dressed are the directories that --parents makes as they are in the tree.
func (item copyItem) dressed(spec build.SelectSpec) []string {
	if !spec.Parents || !item.Dir {
		return item.Above
	}
	return append(slices.Clip(item.Above), item.From)
}

// lister is a tree that sources are looked for in.
type lister interface {
	// Real follows symlinks: see layers.Making.
	Real(unsafePath string) (string, layers.Kind, error)
	// List are the names in a directory, sorted.
	List(way string) ([]string, error)
}

// expand finds what the sources of a COPY mean. With --exclude that may be
// nothing.
func expand(t lister, spec build.SelectSpec) ([]copyItem, *excluder, error) {
	x, err := newExcluder(spec.Exclude)
	if err != nil {
		return nil, nil, err
	}
	var items []copyItem
	for _, source := range spec.Sources {
		found, err := expandOne(t, source, spec)
		if err != nil {
			return nil, nil, err
		}
		items = append(items, found...)
	}
	if len(items) == 0 {
		return nil, nil, fmt.Errorf("%s: %w", strings.Join(spec.Sources, " "), build.ErrNoSource)
	}
	return x.items(items), x, nil
}

func expandOne(t lister, source string, spec build.SelectSpec) ([]copyItem, error) {
	left := 0 // components of what stands before /./, which docker doesn't keep
	if spec.Parents {
		if before, after, found := strings.Cut(source, "/./"); found {
			if clean := strings.Trim(path.Clean(before), "/."); clean != "" {
				left = strings.Count(clean, "/") + 1
			}
			source = before + "/" + after
		}
	}
	clean := path.Clean(strings.TrimLeft(source, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("%s: %w", source, build.ErrOutside)
	}
	m := matcher{tree: t, literal: spec.Literal, deep: spec.Parents}
	matches, err := m.find(clean)
	if err != nil {
		return nil, err
	}
	var items []copyItem
	for _, match := range matches {
		way, kind, err := t.Real(match)
		if err != nil {
			return nil, err
		}
		switch {
		case kind == layers.Nothing && way != match:
			return nil, fmt.Errorf("/%s leads to /%s: %w", match, way, build.ErrNoSource)
		case kind == layers.Nothing:
			return nil, fmt.Errorf("/%s: %w", match, build.ErrNoSource)
		}
		item := copyItem{From: way, Name: path.Base(match), Dir: kind == layers.Directory}
		if spec.Parents {
			parts := strings.Split(match, "/")
			item.Pivot = path.Join(parts[:min(left, len(parts))]...)
			item.Above = parentsOf(match, item.Pivot)
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
	items, exclude, err := expand(tree, spec)
	if errors.Is(err, build.ErrNoSource) {
		missing := strings.TrimSuffix(err.Error(), ": "+build.ErrNoSource.Error())
		s.tell(event{Picked: &picked{Missing: missing}})
		return nil
	}
	if err != nil {
		return err
	}
	sum := sha256.New()
	for _, item := range items {
		fmt.Fprintf(sum, "item %q %v %q %v\n", item.Name, item.Dir, item.Above, spec.Parents)
		for _, dir := range item.dressed(spec) {
			if err := tree.Look(sum, dir); err != nil {
				return err
			}
		}
		if err := tree.Describe(ctx, sum, item.From, exclude.in(item)); err != nil {
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
