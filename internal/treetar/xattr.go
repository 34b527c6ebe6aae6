package treetar

import (
	"archive/tar"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrRecord begins the PAX records that hold extended attributes.
const xattrRecord = "SCHILY.xattr."

const capability = "security.capability"

// carried says whether an extended attribute goes into a stream: those that
// belong to the file, and neither overlayfs' own nor those of the host's
// security module.
func carried(name string) bool {
	switch {
	case strings.HasPrefix(name, "user.overlay."):
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "system.posix_acl_"), name == capability:
		return true
	}
	return false
}

// addXattrs reads the attributes of an open file. The kernel gives ids in
// them, as capabilities and ACLs have, as this user namespace counts them.
func addXattrs(h *tar.Header, fd int) error {
	return EachXattr(fd, carried, func(name, value string) {
		// archive/tar refuses what would break its own format.
		if strings.ContainsAny(name, "=\x00") {
			return
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrRecord+name] = value
	})
}

// Attributes describes those extended attributes of an open file that go into a
// stream, in an order of their own; "": it has none.
func Attributes(fd int) (string, error) {
	var all []string
	err := EachXattr(fd, carried, func(name, value string) { all = append(all, fmt.Sprintf("%q %q", name, value)) })
	slices.Sort(all)
	return strings.Join(all, "\n"), err
}

// EachXattr reads the extended attributes of an open file that are wanted. One
// that this user namespace may not read is passed over, and a file system
// without any has none.
func EachXattr(fd int, wanted func(name string) bool, found func(name, value string)) error {
	list, err := sized(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("flistxattr: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if name == "" || !wanted(name) {
			continue
		}
		value, err := sized(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
		if err == nil {
			found(name, string(value))
		}
	}
	return nil
}

// sized asks for the size first, and again if it grew meanwhile.
func sized(read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = read(buf)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		return buf[:max(n, 0)], err
	}
}
