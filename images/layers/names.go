package layers

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// Whiteouts of the OCI image specification, layer.md, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// metaPrefix begins the names of aufs' own files, which docker wrote to
	// layers once and which say nothing to anyone else.
	metaPrefix = ".wh..wh."
)

// The mark of a directory that hides the one below, when overlayfs is mounted
// with userxattr (Documentation/filesystems/overlayfs.rst, "whiteouts and
// opaque directories").
const opaqueXattr = "user.overlay.opaque"

// Ways in which a name can be wrong.
var (
	errOutside   = errors.New("it leads outside of the layer")
	errNUL       = errors.New("its name has a zero byte")
	errWhiteout  = errors.New("it is a whiteout of nothing")
	errInside    = errors.New("its path goes through a whiteout")
	errNotRooted = errors.New("the layer's root can only be a directory")
)

// cleanName makes the path of an entry, or of a hard link's target, relative to
// the layer's root: "." is the root, and there are no ".", ".." or empty
// components. A leading slash is dropped, as docker, tar and the OCI
// specification's own examples have it.
func cleanName(unsafeName string) (string, error) {
	if strings.IndexByte(unsafeName, 0) >= 0 {
		return "", errNUL
	}
	if len(unsafeName) >= unix.PathMax {
		return "", fmt.Errorf("its name has %d bytes, over %d: %w", len(unsafeName), unix.PathMax-1, unix.ENAMETOOLONG)
	}
	name := path.Clean(strings.TrimLeft(unsafeName, "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", errOutside
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > unix.NAME_MAX {
			return "", fmt.Errorf("a component of its name has %d bytes, over %d: %w", len(part), unix.NAME_MAX, unix.ENAMETOOLONG)
		}
	}
	return name, nil
}

// errMarker is for what somebody asks for by such a name.
var errMarker = errors.New("in a layer its name means something else")

// marked tells of a component of a path whether a layer can't have a file of
// that name: packed it would say something of the layers below.
func marked(base string) bool { return strings.HasPrefix(base, whiteoutPrefix) }

// leftOut is the note on such a file.
func leftOut(name string) string {
	return fmt.Sprintf("%s is left out: %v", printable(name), errMarker)
}

// marker is what the name of an entry asks for besides the entry itself.
type marker int

const (
	noMarker     marker = iota
	ignored             // aufs' own
	opaqueMarker        // nothing below shows in the directory it is in
	whiteout            // nothing of the name below shows
)

// parseMarker reads a cleaned name. For a whiteout, hidden is the name that it
// hides, one component.
func parseMarker(name string) (kind marker, hidden string, err error) {
	if !strings.Contains(name, whiteoutPrefix) {
		return noMarker, "", nil
	}
	above, base := path.Split(name)
	for part := range strings.SplitSeq(strings.TrimSuffix(above, "/"), "/") {
		if strings.HasPrefix(part, metaPrefix) {
			return ignored, "", nil
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return noMarker, "", errInside
		}
	}
	hidden, ok := strings.CutPrefix(base, whiteoutPrefix)
	switch {
	case !ok:
		return noMarker, "", nil
	case base == opaqueName:
		return opaqueMarker, "", nil
	case strings.HasPrefix(base, metaPrefix):
		return ignored, "", nil
	case hidden == "", hidden == ".", hidden == "..":
		return noMarker, "", errWhiteout
	}
	return whiteout, hidden, nil
}

// printable is a name of an image as an error shows it.
func printable(unsafeName string) string { return treetar.Printable(unsafeName) }
