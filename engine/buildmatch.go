package engine

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"

	"nook/images/layers"
)

// matcher expands wildcards, one component after the other.
type matcher struct {
	tree    lister
	literal bool
	deep    bool // ** is any number of components: --parents
}

func (m matcher) find(pattern string) ([]string, error) {
	found, wild := []string{"."}, false
	if pattern == "." {
		return found, nil
	}
	parts := strings.Split(pattern, "/")
	for n, part := range parts {
		var next []string
		for _, dir := range found {
			matches, err := m.step(dir, part, wild, n == len(parts)-1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pattern, err)
			}
			next = append(next, matches...)
		}
		wild = wild || m.isWild(part)
		found = next
	}
	if m.deep {
		// Below two directories that ** means the same may be found.
		slices.Sort(found)
		found = slices.Compact(found)
	}
	return found, nil
}

func (m matcher) isWild(part string) bool {
	return !m.literal && strings.ContainsAny(part, `*?[\`)
}

// step is one component in one directory. Behind a wildcard not all that
// matched have a certain name.
func (m matcher) step(dir, part string, wild, last bool) ([]string, error) {
	if !m.isWild(part) {
		name := path.Join(dir, part)
		if wild {
			if _, kind, err := m.tree.Real(name); err != nil || kind == layers.Nothing {
				return nil, nil //nolint:nilerr // it isn't there: a link that leads nowhere doesn't match
			}
		}
		return []string{name}, nil
	}
	if m.deep && part == "**" {
		if last { // all that is in it
			return []string{dir}, nil
		}
		return m.below(dir)
	}
	names, err := m.names(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		ok, err := path.Match(part, name)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, path.Join(dir, name))
		}
	}
	return found, nil
}

// names are those in a directory; none in anything else.
func (m matcher) names(dir string) ([]string, error) {
	way, kind, err := m.tree.Real(dir)
	if err != nil || kind != layers.Directory {
		return nil, nil //nolint:nilerr // as for a file: nothing is below it
	}
	return m.tree.List(way)
}

// below are a directory and all in it, without going through symlinks.
func (m matcher) below(dir string) ([]string, error) {
	found := []string{dir}
	names, err := m.names(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		in := path.Join(dir, name)
		if way, kind, err := m.tree.Real(in); err != nil || kind != layers.Directory || way != in {
			continue
		}
		more, err := m.below(in)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// excluder is --exclude: patterns as of .dockerignore. Of a source that is a
// directory they mean what is in it, never itself; of a file its name, or its
// path in the tree; with --parents also what is kept of a path.
type excluder struct {
	mu      sync.Mutex // a matcher compiles its patterns when they are first used
	matcher *patternmatcher.PatternMatcher
}

func newExcluder(patterns []string) (*excluder, error) {
	if len(patterns) == 0 {
		return &excluder{}, nil
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("--exclude: %w", err)
	}
	return &excluder{matcher: matcher}, nil
}

func (x *excluder) matches(name string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	out, err := x.matcher.MatchesOrParentMatches(name)
	return err == nil && out
}

// items are those that aren't files that are left out.
func (x *excluder) items(all []copyItem) []copyItem {
	if x.matcher == nil {
		return all
	}
	return slices.DeleteFunc(all, func(item copyItem) bool {
		return !item.Dir && (x.matches(item.Name) || x.matches(item.From) || x.matches(seenFrom(item.From, item.Pivot)))
	})
}

// in tells what is left out of a directory; nil: nothing.
func (x *excluder) in(item copyItem) func(name string) bool {
	if x.matcher == nil || !item.Dir {
		return nil
	}
	return func(name string) bool {
		if name == item.From {
			return false
		}
		return x.matches(seenFrom(name, item.From)) || len(item.Above) > 0 && x.matches(seenFrom(name, item.Pivot))
	}
}

// seenFrom is a path as seen from a directory that it is in.
func seenFrom(name, dir string) string {
	if dir == "." || dir == "" {
		return name
	}
	return strings.TrimPrefix(name, dir+"/")
}
