package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"nook/internal/hint"
)

// environment is what --env-file and -e set, in the order in which the later
// one wins: -e stands behind every file, wherever it was typed.
//
// A KEY without a value takes the caller's. When the caller has none, KEY from
// -e stays as it is, which takes the image's value away, and KEY in a file
// means nothing. Both are docker's rules, tried with docker 28.2.
func (s *shell) environment(files, flags []string) ([]string, error) {
	var env []string
	for _, file := range files {
		lines, err := readPairs("env file", file)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if line.joined {
				env = append(env, line.key+"="+line.value)
			} else if value, ok := s.lookup(line.key); ok {
				env = append(env, line.key+"="+value)
			}
		}
	}
	for _, flag := range flags {
		key, _, joined := strings.Cut(flag, "=")
		if key == "" {
			return nil, hint.Errorf("see nook run --help", "invalid environment variable: %q", flag)
		}
		if !joined {
			if value, ok := s.lookup(key); ok {
				flag += "=" + value
			}
		}
		env = append(env, flag)
	}
	return env, nil
}

// readLabels is what --label-file and -l set; -l wins. A key alone is an empty
// label from -l and nothing in a file, as docker has it.
func readLabels(files, flags []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, file := range files {
		lines, err := readPairs("label file", file)
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			if line.joined {
				labels[line.key] = line.value
			}
		}
	}
	given := map[string]string{}
	for _, flag := range flags {
		key, value, _ := strings.Cut(flag, "=")
		switch {
		case key == "":
			return nil, hint.Errorf("see nook run --help", "invalid label %q: empty name", flag)
		case strings.ContainsFunc(key, unicode.IsSpace):
			return nil, hint.Errorf("see nook run --help", "invalid label: %q contains whitespace", key)
		}
		given[key] = value
	}
	maps.Copy(labels, given)
	return labels, nil
}

// pair is a line of an env file; joined says that there was a "=".
type pair struct {
	key, value string
	joined     bool
}

func readPairs(what, file string) ([]pair, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("read %s %s: %w", what, file, err)
	}
	pairs, err := parsePairs(data)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, file, err)
	}
	return pairs, nil
}

// parsePairs reads docker's env-file grammar: a line a variable, nothing quoted
// and nothing expanded, the value to the end of the line with its blanks; empty
// lines and lines that begin with # are left out.
func parsePairs(data []byte) ([]pair, error) {
	const blanks = " \t"
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	var pairs []pair
	n := 0
	for raw := range bytes.Lines(data) {
		n++
		line := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("line %d: not UTF-8", n)
		}
		line = strings.TrimLeft(line, blanks)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, joined := strings.Cut(line, "=")
		switch {
		case key == "":
			return nil, fmt.Errorf("line %d: no name before the =", n)
		case strings.ContainsAny(key, blanks):
			return nil, fmt.Errorf("line %d: variable %q contains whitespace", n, key)
		case strings.ContainsRune(line, 0):
			return nil, fmt.Errorf("line %d: contains a NUL byte", n)
		}
		pairs = append(pairs, pair{key, value, joined})
	}
	return pairs, nil
}
