package images

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"nook/internal/hint"
)

// Filter chooses among images, as docker's --filter does. What is zero chooses
// nothing away; of several conditions each must hold.
type Filter struct {
	// Dangling: whether the image has no name; nil: either.
	Dangling *bool
	// References are patterns, see MatchReference; one of them must match. The
	// names that none matches are left out.
	References []string
	// Before and Since are images, see Resolve: those that were made before or
	// after each of them are chosen.
	Before, Since []string
	// Until chooses those that were made before it.
	Until time.Time
	// Labels, KEY or KEY=VALUE: the image must have all of them, and not all of
	// NotLabels.
	Labels, NotLabels []string
}

// Select returns the images that the filter chooses, the one that came last
// being the last. It reads one file, and with labels each image's config.
func (s *Store) Select(ctx context.Context, f Filter) ([]Image, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	before, err := findAll(all, f.Before)
	if err != nil {
		return nil, err
	}
	since, err := findAll(all, f.Since)
	if err != nil {
		return nil, err
	}
	var chosen []Image
	for _, img := range all {
		if f.Dangling != nil && *f.Dangling != (len(img.Names) == 0) ||
			!f.Until.IsZero() && !img.Created.Before(f.Until) ||
			slices.ContainsFunc(before, func(other Image) bool { return !img.Created.Before(other.Created) }) ||
			slices.ContainsFunc(since, func(other Image) bool { return !img.Created.After(other.Created) }) {
			continue
		}
		img.Names, err = matchingNames(img.Names, f.References)
		if err != nil {
			return nil, err
		}
		if len(f.References) > 0 && len(img.Names) == 0 {
			continue
		}
		labelled, err := s.labelled(img, f)
		if err != nil {
			return nil, err
		}
		if labelled {
			chosen = append(chosen, img)
		}
	}
	return chosen, nil
}

func findAll(all []Image, names []string) ([]Image, error) {
	var found []Image
	for _, name := range names {
		img, err := Find(all, name)
		if err != nil {
			return nil, err
		}
		found = append(found, img)
	}
	return found, nil
}

func matchingNames(names, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return names, nil
	}
	var matching []string
	for _, name := range names {
		for _, pattern := range patterns {
			matches, err := MatchReference(pattern, name)
			if err != nil {
				return nil, err
			}
			if matches {
				matching = append(matching, name)
				break
			}
		}
	}
	return matching, nil
}

func (s *Store) labelled(img Image, f Filter) (bool, error) {
	if len(f.Labels)+len(f.NotLabels) == 0 {
		return true, nil
	}
	cfg, err := s.Config(img)
	if err != nil {
		return false, err
	}
	has := func(wanted []string) bool {
		return !slices.ContainsFunc(wanted, func(label string) bool {
			key, value, hasValue := strings.Cut(label, "=")
			got, there := cfg.Config.Labels[key]
			return !there || hasValue && got != value
		})
	}
	return has(f.Labels) && (len(f.NotLabels) == 0 || !has(f.NotLabels)), nil
}

// MatchReference tells whether a full name, as Image.Names has it, matches
// docker's REPOSITORY[:TAG], whose two parts may be patterns of path.Match. The
// repository is compared as lists show it: busybox, localhost:5000/team/app.
func MatchReference(pattern, name string) (bool, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return false, nil //nolint:nilerr // a name of a newer nook's matches nothing
	}
	wantTag := ""
	if i := strings.LastIndexByte(pattern, ':'); i > strings.LastIndexByte(pattern, '/') {
		pattern, wantTag = pattern[:i], pattern[i+1:]
	}
	if full, err := ParseReference(pattern); err == nil {
		pattern = full.FamiliarRepository()
	}
	sameRepository, err := path.Match(pattern, ref.FamiliarRepository())
	if err != nil {
		return false, badPattern(pattern)
	}
	if wantTag == "" {
		return sameRepository, nil
	}
	sameTag, err := path.Match(wantTag, ref.Tag)
	if err != nil {
		return false, badPattern(wantTag)
	}
	return sameRepository && sameTag, nil
}

func badPattern(pattern string) error {
	return hint.Errorf("a pattern is the shell's: busy*, *:v?, app:1.[0-9]", "invalid pattern %q", shorten(pattern))
}

// Count keeps the sum of the layers' UnpackedSize with the image.
func (s *Store) Count(ctx context.Context, img Image, layers []Layer) error {
	size := unpackedSize(layers)
	return s.update(ctx, func(idx *index) error {
		for i, entry := range idx.Manifests {
			if entry.Digest == img.Manifest.Digest {
				entry = withName(entry, entry.Annotations[annotationRefName])
				setUnpacked(entry, size)
				idx.Manifests[i] = entry
			}
		}
		return nil
	})
}
