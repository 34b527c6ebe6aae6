package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"nook/internal/hint"
)

// ignore reads what .dockerignore leaves out of the context. NAME.dockerignore
// beside the Dockerfile NAME stands before that of the context.
func (src *source) ignore(o Source, local bool) (Filter, error) {
	root, err := os.OpenRoot(src.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var f *os.File
	name := src.name + ".dockerignore"
	switch {
	case o.File == "-":
		err = fs.ErrNotExist
	case local && o.File != "":
		f, err = regular(os.OpenFile, name)
	default:
		f, err = regular(root.OpenFile, name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		name = ".dockerignore"
		f, err = regular(root.OpenFile, name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err == nil {
		err = checkPatterns(name, data)
	}
	if err != nil {
		return nil, err
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	filter, err := ignoring(patterns)
	if err != nil {
		return nil, badPattern(name, data, err)
	}
	return filter, nil
}

// checkPatterns finds the line that is no text.
func checkPatterns(name string, data []byte) error {
	n := 0
	for line := range bytes.Lines(data) {
		if n++; !isText(string(line)) {
			return fmt.Errorf("%s:%d: not UTF-8 text", name, n)
		}
	}
	return nil
}

// badPattern finds the line that is no pattern.
func badPattern(name string, data []byte, err error) error {
	const advice = `in a pattern * ? and [a-z] mean others, \ takes the meaning of what follows, and ! begins an exception`
	n := 0
	for line := range bytes.Lines(data) {
		n++
		one, bad := ignorefile.ReadAll(bytes.NewReader(line))
		if bad == nil {
			_, bad = patternmatcher.New(one)
		}
		if bad != nil {
			return hint.Errorf(advice, "%s:%d: %s: %w", name, n, bytes.TrimSpace(line), bad)
		}
	}
	return hint.Errorf(advice, "%s: %w", name, err)
}

// ignoring makes a filter of patterns.
func ignoring(patterns []string) (Filter, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	// A matcher compiles its patterns when they are first used.
	var mu sync.Mutex
	return func(name string, dir bool, above any) (Verdict, any) {
		if name == "." || name == "" {
			return In, nil
		}
		mu.Lock()
		defer mu.Unlock()
		info, _ := above.(patternmatcher.MatchInfo)
		out, below, err := m.MatchesUsingParentResults(filepath.FromSlash(name), info)
		switch {
		case err != nil || !out:
			return In, below
		case dir && m.Exclusions() && mayHold(m, name):
			return Out, below
		}
		return Prune, below
	}, nil
}

// mayHold says whether an exception (!pattern) may mean something below dir.
func mayHold(m *patternmatcher.PatternMatcher, dir string) bool {
	for _, p := range m.Patterns() {
		if !p.Exclusion() {
			continue
		}
		text := path.Clean(p.String())
		// Up to its first wildcard a pattern is a path.
		plain := text
		if i := strings.IndexAny(text, `*?[\`); i >= 0 {
			plain = text[:i]
		}
		if strings.HasPrefix(plain, dir+"/") || plain != text && strings.HasPrefix(dir+"/", plain) ||
			strings.HasPrefix(dir+"/", text+"/") {
			return true
		}
	}
	return false
}
