package images

import (
	"slices"
	"strings"

	"nook/internal/hint"
)

// minPrefix is the shortest beginning of an ID that names an image. docker
// takes one digit; then a misspelt short name runs what nobody asked for.
const minPrefix = 4

// Resolve finds an image by name (busybox, busybox:1.36, busybox@sha256:…) or
// by ID (whole, or a prefix no other image's has; with or without sha256:).
// A name goes before an ID prefix, as with docker. The error is ErrNotFound or
// ErrAmbiguous. It reads one file.
func (s *Store) Resolve(nameOrID string) (Image, error) {
	idx, err := s.readIndex()
	if err != nil {
		return Image{}, err
	}
	return Find(s.images(idx), nameOrID)
}

// Find is Resolve in a list of images: for many names at once.
func Find(list []Image, nameOrID string) (Image, error) {
	prefix, wholeID := strings.CutPrefix(nameOrID, digestPrefix)
	wholeID = wholeID || isHex(nameOrID, 64)
	var parseErr error
	if !wholeID {
		var ref Reference
		if ref, parseErr = ParseReference(nameOrID); parseErr == nil {
			if img, found := findName(list, ref); found {
				return img, nil
			}
		}
	}
	if len(prefix) >= minPrefix && strings.Trim(prefix, digits+"abcdef") == "" {
		img, found, err := findID(list, prefix)
		if found || err != nil {
			return img, err
		}
	} else if parseErr != nil {
		return Image{}, parseErr
	}
	return Image{}, hint.Errorf("nook images lists what is here; nook load -i FILE brings an image in",
		"image %q: %w", shorten(nameOrID), ErrNotFound)
}

// findName finds the image that ref names. Where ref has a digest, its tag
// doesn't count: docker's way.
func findName(list []Image, ref Reference) (Image, bool) {
	if ref.Digest == "" {
		full := ref.String()
		for _, img := range list {
			if slices.Contains(img.Names, full) {
				return img, true
			}
		}
		return Image{}, false
	}
	for _, img := range list {
		if (img.Manifest.Digest == ref.Digest || slices.Contains(img.Indexes, ref.Digest)) && len(namesIn(img, ref.Repository())) > 0 {
			return img, true
		}
	}
	return Image{}, false
}

// namesIn lists the names of img that lie in a repository.
func namesIn(img Image, repository string) []string {
	var names []string
	for _, name := range img.Names {
		if rest, found := strings.CutPrefix(name, repository); found && rest != "" && strings.ContainsAny(rest[:1], ":@") {
			names = append(names, name)
		}
	}
	return names
}

// findID finds the image whose ID begins with prefix. Two manifests with one
// config, say with layers compressed in two ways, are one image here; the one
// that came last counts.
func findID(list []Image, prefix string) (found Image, ok bool, err error) {
	for _, img := range list {
		if !strings.HasPrefix(hexOf(img.ID), prefix) {
			continue
		}
		if ok && img.ID != found.ID {
			return Image{}, false, hint.Errorf("give more digits of the ID",
				"image ID %s: %w: %s and %s", prefix, ErrAmbiguous, label(found), label(img))
		}
		found, ok = img, true
	}
	return found, ok, nil
}

// label is how an error names an image: its short ID and its names.
func label(img Image) string {
	if len(img.Names) == 0 {
		return ShortID(img.ID)
	}
	names := make([]string, len(img.Names))
	for i, name := range img.Names {
		names[i] = FamiliarName(name)
	}
	return ShortID(img.ID) + " (" + strings.Join(names, ", ") + ")"
}

// ShortID is the ID as lists show it: twelve digits.
func ShortID(id string) string {
	short := hexOf(id)
	return short[:min(len(short), 12)]
}
