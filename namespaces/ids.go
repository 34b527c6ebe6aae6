// Package namespaces decides which ids a user namespace of ours has, and
// starts processes in new namespaces.
//
//	ids, err := namespaces.Detect(namespaces.Auto)
//	p := raw.New(raw.DefaultSize)
//	...
//	child, err := namespaces.Start(ctx, p, ids, unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
//
// Nook always uses a user namespace, as root too: rootless is the only mode.
// What happens inside (mounts, confinement) is other packages' business.
package namespaces

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/user"

	"nook/internal/hint"
)

// Mode says which ids exist in the user namespace.
type Mode string

const (
	// Auto takes Mapped where the host allows it and Single elsewhere. It is
	// never recorded.
	Auto Mode = "auto"
	// Mapped: container 0 is the user, 1 and up are the user's range of
	// /etc/subuid and /etc/subgid, written by newuidmap(1) and newgidmap(1).
	Mapped Mode = "mapped"
	// Single: container 0 is the user, and no other id exists.
	Single Mode = "single"
	// Root: nook was started by root; container n is host n.
	Root Mode = "root"
)

// ErrMode says that a mode was asked for by a name that isn't one.
var ErrMode = errors.New("unknown id mode")

// Range is one line of a uid_map or gid_map (user_namespaces(7)).
type Range struct {
	Inside, Outside, Count uint32
}

// IDs are the maps of a user namespace.
type IDs struct {
	Mode Mode
	// Why is the reason for Single where Auto was asked for.
	Why  string
	UIDs []Range
	GIDs []Range
}

// Detect finds the ids that this process may use. It starts no process.
func Detect(want Mode) (IDs, error) {
	switch want {
	case Auto, "", Mapped, Single:
	default:
		return IDs{}, hint.Errorf("--ids takes auto, mapped or single", "--ids %s: %w", want, ErrMode)
	}
	euid, egid := os.Geteuid(), os.Getegid()
	if euid == 0 && want != Single {
		return asRoot(want)
	}
	single := IDs{
		Mode: Single,
		UIDs: []Range{{0, uint32(euid), 1}},
		GIDs: []Range{{0, uint32(egid), 1}},
	}
	if want == Single {
		single.Why = "asked for"
		return single, nil
	}
	mapped, err := fromSubids(euid, egid)
	if err == nil {
		return mapped, nil
	}
	if want == Mapped {
		return IDs{}, hint.Wrap(fmt.Errorf("--ids mapped: %w", err), hint.Of(err))
	}
	single.Why = err.Error()
	return single, nil
}

// asRoot maps every id that exists in our own user namespace to itself. With
// one id only, as in a nested sandbox, that is the single mode.
func asRoot(want Mode) (IDs, error) {
	uids, err := identity("/proc/self/uid_map")
	if err != nil {
		return IDs{}, err
	}
	gids, err := identity("/proc/self/gid_map")
	if err != nil {
		return IDs{}, err
	}
	if total(uids) <= 1 || total(gids) <= 1 {
		if want == Mapped {
			return IDs{}, errors.New("--ids mapped: only one id exists in this user namespace")
		}
		return IDs{Mode: Single, Why: "only one id exists in this user namespace",
			UIDs: []Range{{0, 0, 1}}, GIDs: []Range{{0, 0, 1}}}, nil
	}
	return IDs{Mode: Root, UIDs: uids, GIDs: gids}, nil
}

func total(rs []Range) (n uint64) {
	for _, r := range rs {
		n += uint64(r.Count)
	}
	return n
}

// identity reads a map file of /proc and maps each id inside to itself.
func identity(path string) ([]Range, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, noProc(err)
	}
	ranges, err := ParseMap(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range ranges {
		ranges[i].Outside = ranges[i].Inside
	}
	return ranges, nil
}

// ParseMap reads the text of a uid_map or gid_map.
func ParseMap(text string) ([]Range, error) {
	var out []Range
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("id map line %q has not three numbers", line)
		}
		var n [3]uint32
		for i := range f {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("id map line %q: %w", line, err)
			}
			n[i] = uint32(v)
		}
		out = append(out, Range{n[0], n[1], n[2]})
	}
	return out, nil
}

// FormatMap is the text that the kernel takes for a map.
func FormatMap(ranges []Range) string {
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d %d\n", r.Inside, r.Outside, r.Count)
	}
	return b.String()
}

func fromSubids(euid, egid int) (IDs, error) {
	if err := helpersWork(); err != nil {
		return IDs{}, err
	}
	name := loginName(euid)
	uids, err := subids("/etc/subuid", name, euid)
	if err != nil {
		return IDs{}, err
	}
	gids, err := subids("/etc/subgid", name, euid)
	if err != nil {
		return IDs{}, err
	}
	for file, ranges := range map[string][]Range{"/proc/self/uid_map": uids, "/proc/self/gid_map": gids} {
		if err := available(file, ranges); err != nil {
			return IDs{}, err
		}
	}
	return IDs{
		Mode: Mapped,
		UIDs: append([]Range{{0, uint32(euid), 1}}, uids...),
		GIDs: append([]Range{{0, uint32(egid), 1}}, gids...),
	}, nil
}

// loginName is the user's name in /etc/passwd, or "": subuid(5) lines may
// also begin with the number.
func loginName(uid int) string {
	users, err := user.ParsePasswdFileFilter("/etc/passwd", func(u user.User) bool { return u.Uid == uid })
	if err != nil || len(users) == 0 {
		return ""
	}
	return users[0].Name
}

func subids(path, name string, uid int) ([]Range, error) {
	number := strconv.Itoa(uid)
	lines, err := user.ParseSubIDFileFilter(path, func(s user.SubID) bool {
		return s.Name == number || name != "" && s.Name == name
	})
	who := name
	if who == "" {
		who = "uid " + number
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var out []Range
	inside := uint32(1)
	const most = 1<<32 - 1 // ids of the kernel; the last one is none
	for _, l := range lines {
		if l.Count <= 0 || l.SubID < 0 || l.SubID > most || l.Count > most-l.SubID || l.Count > most-int64(inside) {
			continue
		}
		out = append(out, Range{inside, uint32(l.SubID), uint32(l.Count)})
		inside += uint32(l.Count)
	}
	if len(out) == 0 {
		return nil, hint.Errorf(
			fmt.Sprintf("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", who),
			"%s has no line for %s", path, who)
	}
	return out, nil
}
