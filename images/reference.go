package images

import (
	"fmt"
	"strings"

	"nook/internal/hint"
)

const (
	defaultRegistry = "docker.io"
	// legacyRegistry is what docker.io was called in old configurations.
	legacyRegistry = "index.docker.io"
	officialPrefix = "library/"
	defaultTag     = "latest"

	maxPathLength = 255
	maxTagLength  = 128
)

// Reference is the name of an image in full: what docker's users type, with
// what they leave out filled in.
//
// The grammar is docker's (github.com/distribution/reference), written by hand:
// that library compiles a dozen regular expressions at each start of the
// program, and each run of a container parses a reference. The tests hold the
// two against each other.
type Reference struct {
	Registry string // docker.io, localhost:5000, [::1]:5000
	Path     string // library/busybox
	Tag      string // "" only where there is a digest
	Digest   string // sha256:…, or ""
}

// ParseReference reads the name of an image as docker does:
//
//	busybox                  docker.io/library/busybox:latest
//	user/app:1               docker.io/user/app:1
//	localhost:5000/x         localhost:5000/x:latest
//	busybox@sha256:…         docker.io/library/busybox@sha256:…
//	busybox:1.36@sha256:…    both are kept; the digest decides
func ParseReference(s string) (Reference, error) {
	ref, err := parseReference(s)
	if err != nil {
		return Reference{}, hint.Wrap(fmt.Errorf("image name %q: %w", shorten(s), err),
			"an image is named [REGISTRY/]NAME[:TAG][@sha256:DIGEST]")
	}
	return ref, nil
}

func parseReference(s string) (Reference, error) {
	if s == "" {
		return Reference{}, fmt.Errorf("is empty")
	}
	if _, rest, found := strings.Cut(s, "://"); found {
		return Reference{}, fmt.Errorf("is a URL; the name alone is %s", shorten(rest))
	}
	if isHex(s, 64) {
		return Reference{}, fmt.Errorf("64 hexadecimal digits are an image ID and can't be a name")
	}
	var ref Reference
	name, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		if err := checkReferenceDigest(digest); err != nil {
			return Reference{}, err
		}
		ref.Digest = digest
	}
	// A colon after the last slash begins a tag; one before it, a port.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		ref.Tag, name = name[i+1:], name[:i]
		if err := checkTag(ref.Tag); err != nil {
			return Reference{}, err
		}
	}
	ref.Registry, ref.Path = splitRegistry(name)
	if err := checkRegistry(ref.Registry); err != nil {
		return Reference{}, err
	}
	if err := checkPath(ref.Path); err != nil {
		return Reference{}, err
	}
	if ref.Tag == "" && ref.Digest == "" {
		ref.Tag = defaultTag
	}
	return ref, nil
}

// splitRegistry tells a registry from the first element of a path: it has a
// dot, a colon or an upper case letter, or is localhost.
func splitRegistry(name string) (registry, path string) {
	first, rest, found := strings.Cut(name, "/")
	switch {
	case !found:
		registry, path = defaultRegistry, name
	case first == legacyRegistry:
		registry, path = defaultRegistry, rest
	case first == "localhost", strings.ContainsAny(first, ".:"), strings.ToLower(first) != first:
		registry, path = first, rest
	default:
		registry, path = defaultRegistry, name
	}
	if registry == defaultRegistry && !strings.Contains(path, "/") {
		path = officialPrefix + path
	}
	return registry, path
}

func checkRegistry(s string) error {
	host := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		var port string
		host, port = s[:i], s[i+1:]
		if port == "" || strings.Trim(port, digits) != "" {
			return fmt.Errorf("%q is not a port", port)
		}
	}
	if inner, found := strings.CutPrefix(host, "["); found {
		inner, found = strings.CutSuffix(inner, "]")
		if !found || inner == "" || strings.Trim(inner, digits+"abcdefABCDEF:") != "" {
			return fmt.Errorf("%q is not an IPv6 address", host)
		}
		return nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, digits+lower+upper+"-") != "" {
			return fmt.Errorf("%q is not a registry", s)
		}
	}
	return nil
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func checkPath(path string) error {
	if len(path) > maxPathLength {
		return fmt.Errorf("is longer than %d characters", maxPathLength)
	}
	for element := range strings.SplitSeq(path, "/") {
		if err := checkElement(element); err != nil {
			return err
		}
	}
	return nil
}

// checkElement holds one element of a path to: runs of a-z and 0-9, and
// between two of them one ".", "_" or "__", or any number of "-".
func checkElement(s string) error {
	if s == "" {
		return fmt.Errorf("has an empty element between slashes")
	}
	separator := ""
	for i := range len(s) {
		c := s[i]
		switch {
		case strings.IndexByte(lower+digits, c) >= 0:
			separator = ""
			continue
		case strings.IndexByte(upper, c) >= 0:
			return fmt.Errorf("upper case letters are not allowed in %q", s)
		case c != '.' && c != '_' && c != '-':
			return fmt.Errorf("%q is not allowed in %q", runeAt(s, i), s)
		}
		separator += string(c)
		single := separator == "." || separator == "_" || separator == "__"
		if i == 0 || i == len(s)-1 || !single && strings.Trim(separator, "-") != "" {
			return fmt.Errorf("%q begins, ends or doubles a separator", s)
		}
	}
	return nil
}

func checkTag(tag string) error {
	switch {
	case tag == "":
		return fmt.Errorf("has an empty tag")
	case len(tag) > maxTagLength:
		return fmt.Errorf("the tag is longer than %d characters", maxTagLength)
	case tag[0] == '.' || tag[0] == '-':
		return fmt.Errorf("the tag %q begins with %q", tag, tag[:1])
	}
	for i := range len(tag) {
		if strings.IndexByte(digits+lower+upper+"_.-", tag[i]) < 0 {
			return fmt.Errorf("%q is not allowed in the tag %q", runeAt(tag, i), tag)
		}
	}
	return nil
}

// checkReferenceDigest takes the algorithms of the OCI image specification
// ("Registered algorithms"). The store itself holds sha256 alone, so the
// others resolve to nothing; they are well-formed names all the same.
func checkReferenceDigest(s string) error {
	algorithm, encoded, _ := strings.Cut(s, ":")
	length := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	if length == 0 {
		return fmt.Errorf("%q is not a digest: sha256:… is expected", shorten(s))
	}
	if !isHex(encoded, length) {
		return fmt.Errorf("%q is not a digest: %s has %d lower case hexadecimal digits",
			shorten(s), algorithm, length)
	}
	return nil
}

// String is the full form, which parses back into the same reference.
func (r Reference) String() string {
	return r.Repository() + r.suffix(r.Tag)
}

// Repository is the full name without tag and digest:
// docker.io/library/busybox.
func (r Reference) Repository() string { return r.Registry + "/" + r.Path }

// FamiliarRepository is the shortest name that means the same repository:
// busybox. It is what the REPOSITORY column of docker images shows.
func (r Reference) FamiliarRepository() string {
	short := r.Path
	if rest := strings.TrimPrefix(r.Path, officialPrefix); !strings.Contains(rest, "/") {
		short = rest
	}
	// docker.io/localhost/x can't be shortened: localhost/x is another name.
	registry, path := splitRegistry(short)
	if registry != r.Registry || path != r.Path || isHex(short, 64) {
		return r.Repository()
	}
	return short
}

// Familiar is the shortest form that parses back into the same reference:
// busybox for docker.io/library/busybox:latest.
func (r Reference) Familiar() string {
	tag := r.Tag
	if r.Digest == "" && tag == defaultTag {
		tag = ""
	}
	return r.FamiliarRepository() + r.suffix(tag)
}

// FamiliarTagged is Familiar with the tag always there: busybox:latest. It is
// what docker prints when it names an image.
func (r Reference) FamiliarTagged() string {
	return r.FamiliarRepository() + r.suffix(r.Tag)
}

func (r Reference) suffix(tag string) string {
	s := ""
	if tag != "" {
		s = ":" + tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// FamiliarName is FamiliarTagged of a full name as Image.Names holds it; one
// that isn't well-formed comes back as it is.
func FamiliarName(full string) string {
	ref, err := ParseReference(full)
	if err != nil {
		return full
	}
	return ref.FamiliarTagged()
}

// runeAt is the character that a person sees at byte i.
func runeAt(s string, i int) string {
	for _, r := range s[i:] {
		return string(r)
	}
	return ""
}

// shorten keeps what a hostile archive calls itself from filling the screen.
func shorten(s string) string {
	const longest = 160
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "…"
}
