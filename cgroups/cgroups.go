// Package cgroups finds out what control groups this host has and what of
// them is ours.
//
//	d := cgroups.Detect()
//	fmt.Println(d.Hierarchy, d.Delegated, d.Why)
//
// It makes one kind of group, the Freezer of a paused container, and sets no
// limit.
package cgroups

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is how a host has its hierarchies.
type Kind string

// The kinds, as systemd names them (systemd, docs/CGROUP_DELEGATION.md).
const (
	Unified Kind = "v2"     // cgroup2 at /sys/fs/cgroup
	Hybrid  Kind = "hybrid" // v1 controllers, and a cgroup2 beside them
	Legacy  Kind = "v1"
	None    Kind = "none"
)

const mountPoint = "/sys/fs/cgroup"

// Hierarchy tells the kind of the host by one statfs(2) or two.
func Hierarchy() Kind {
	return hierarchy(mountPoint)
}

func hierarchy(root string) Kind {
	switch magic(root) {
	case unix.CGROUP2_SUPER_MAGIC:
		return Unified
	case unix.TMPFS_MAGIC, unix.CGROUP_SUPER_MAGIC:
		if magic(filepath.Join(root, "unified")) == unix.CGROUP2_SUPER_MAGIC {
			return Hybrid
		}
		entries, err := os.ReadDir(root)
		if err == nil && len(entries) > 0 {
			return Legacy
		}
	}
	return None
}

func magic(path string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0
	}
	return int64(st.Type) //nolint:unconvert // 32 bits on some machines
}

// Detection is what Detect found.
type Detection struct {
	Hierarchy Kind
	// Path is our own group: of the cgroup2 hierarchy where there is one.
	Path string
	// Controllers are those that may be used below Path; of v1, those whose
	// own group is writable.
	Controllers []string
	// Delegated says that we may make groups below Path.
	Delegated bool
	// ReadOnly says that the file systems are mounted read-only.
	ReadOnly bool
	// Why says what Delegated follows from.
	Why string
}

// Detect looks at this process's groups. It changes nothing.
func Detect() Detection {
	return detect(mountPoint, "/proc/self/cgroup")
}

func detect(root, membership string) Detection {
	d := Detection{Hierarchy: hierarchy(root)}
	groups := memberships(membership)
	switch d.Hierarchy {
	case None:
		d.Why = "no cgroup file system at " + root
		return d
	case Unified:
		d.Path = groups[""]
		dir := filepath.Join(root, d.Path)
		d.unified(dir)
	default:
		d.Path = groups[""]
		d.legacy(root, groups)
	}
	return d
}

func (d *Detection) unified(dir string) {
	if data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil {
		d.Controllers = strings.Fields(string(data))
	}
	d.ReadOnly = readOnly(dir)
	switch {
	case d.ReadOnly:
		d.Why = dir + " is mounted read-only"
	case unix.Access(dir, unix.W_OK) != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil:
		d.Why = dir + " isn't ours to write"
	default:
		d.Delegated, d.Why = true, dir+" is writable"
	}
}

func (d *Detection) legacy(root string, groups map[string]string) {
	for controllers, group := range groups {
		if controllers == "" || strings.HasPrefix(controllers, "name=") {
			continue
		}
		dir := filepath.Join(root, controllers, group)
		if readOnly(filepath.Join(root, controllers)) {
			d.ReadOnly = true
			continue
		}
		if unix.Access(dir, unix.W_OK) == nil {
			d.Controllers = append(d.Controllers, strings.Split(controllers, ",")...)
		}
	}
	slices.Sort(d.Controllers)
	d.Delegated = len(d.Controllers) > 0
	switch {
	case d.Delegated:
		d.Why = "own groups are writable"
	case d.ReadOnly:
		d.Why = root + " is mounted read-only"
	default:
		d.Why = "no group of a controller is ours to write"
	}
}

func readOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// memberships reads /proc/self/cgroup: controllers to group; "" is cgroup2's
// (cgroups(7)).
func memberships(path string) map[string]string {
	out := map[string]string{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		parts := strings.SplitN(s.Text(), ":", 3)
		if len(parts) == 3 {
			out[parts[1]] = parts[2]
		}
	}
	return out
}
