package confine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"nook/internal/hint"
)

// User is who the entrypoint runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// ErrNoUser says that an image has no such user or group.
var ErrNoUser = errors.New("no such user or group")

// LookupUser reads a USER (name|uid[:group|gid], as in the image-spec's
// config) in the passwd and group files below root. An empty one is root. A
// number needs no line in passwd; a name does.
//
// root is the container's merged root directory; its files are opened beneath
// it (openat2(2), RESOLVE_IN_ROOT).
func LookupUser(root *os.File, spec string, open func(root *os.File, unsafePath string) (*os.File, error)) (User, error) {
	passwd, closePasswd, err := openOptional(root, "etc/passwd", open)
	if err != nil {
		return User{}, err
	}
	defer closePasswd()
	group, closeGroup, err := openOptional(root, "etc/group", open)
	if err != nil {
		return User{}, err
	}
	defer closeGroup()
	return lookup(spec, passwd, group)
}

func lookup(spec string, passwd, group io.Reader) (User, error) {
	if spec == "" {
		spec = "0"
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, passwd, group)
	if errors.Is(err, bufio.ErrTooLong) { // no such file: a number needs none
		found, err = user.GetExecUser(spec, &user.ExecUser{Home: "/"}, nil, nil)
	}
	if err != nil {
		return User{}, hint.Errorf("--user takes name|uid[:group|gid]; a name must stand in the image's /etc/passwd or /etc/group",
			"user %q: %w: %w", spec, ErrNoUser, err)
	}
	u := User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: found.Home}
	// The group of the user's own is among the others too, as docker has it: a
	// setgid program could otherwise drop it, and with it a file's refusal to
	// that group (CVE-2022-36109).
	u.Groups = []uint32{u.GID}
	for _, g := range found.Sgids {
		if uint32(g) != u.GID {
			u.Groups = append(u.Groups, uint32(g))
		}
	}
	if u.Home == "" {
		u.Home = "/"
	}
	return u, nil
}

// longest is how much of a passwd or group file is read, in bytes: an image
// chose its size.
const longest = 4 << 20

// lacks tells whether there is no file to be read, whatever an image has in
// its place: a number needs none.
func lacks(err error) bool {
	return slices.ContainsFunc([]error{
		unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.ENAMETOOLONG,
		unix.EACCES, unix.EPERM, // a link to a file of the kernel's
		unix.ENXIO, unix.ENODEV, // a socket, a device
	}, func(e error) bool { return errors.Is(err, e) })
}

// openOptional opens a file that an image may lack. One that isn't a regular
// file counts as lacking: a fifo would hold us for ever. Nor does one that a link finds on another mount.
func openOptional(root *os.File, name string, open func(*os.File, string) (*os.File, error)) (io.Reader, func(), error) {
	f, err := open(root, name)
	switch {
	case lacks(err):
		return nil, func() {}, nil
	case err != nil:
		return nil, nil, fmt.Errorf("open the image's /%s: %w", name, err)
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil, func() {}, nil //nolint:nilerr // as if it weren't there
	}
	return io.LimitReader(f, longest), func() { _ = f.Close() }, nil
}
