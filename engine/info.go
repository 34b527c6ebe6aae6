package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nook/cgroups"
	"nook/containers"
	"nook/namespaces"
	"nook/namespaces/confine"
	"nook/rootfs"
)

// Info is what nook finds on this host, and which step of each ladder it
// takes.
type Info struct {
	Root           string         `json:"root"`
	IDs            IDsInfo        `json:"ids"`
	UserNamespaces Finding        `json:"userNamespaces"`
	Overlay        Finding        `json:"overlay"`
	Proc           Finding        `json:"proc"`
	Sysfs          Finding        `json:"sysfs"`
	Paths          Finding        `json:"paths"`
	Seccomp        Finding        `json:"seccomp"`
	Cgroup         CgroupInfo     `json:"cgroup"`
	RuntimeDir     Finding        `json:"runtimeDirectory"`
	Kernel         string         `json:"kernel"`
	Architecture   string         `json:"architecture"`
	Images         int            `json:"images"`
	Containers     int            `json:"containers"`
	ByStatus       map[string]int `json:"byStatus"`
}

// Finding is a step of a ladder: what is in use, why not the one above it,
// and what that costs.
type Finding struct {
	Use  string `json:"use"`
	Why  string `json:"why,omitempty"`
	Cost string `json:"cost,omitempty"`
}

// IDsInfo tells the ids of containers.
type IDsInfo struct {
	Mode string `json:"mode"`
	Why  string `json:"why,omitempty"`
	UIDs string `json:"uids"`
	GIDs string `json:"gids"`
}

// CgroupInfo tells what cgroups.Detect found.
type CgroupInfo struct {
	Hierarchy   string   `json:"hierarchy"`
	Path        string   `json:"path,omitempty"`
	Delegated   bool     `json:"delegated"`
	Controllers []string `json:"controllers"`
	Why         string   `json:"why"`
}

// Info looks at the host. Each mount is really tried, in namespaces that go
// away at once.
func (e *Engine) Info(ctx context.Context) (*Info, error) {
	group := cgroups.Detect()
	dir, why := RuntimeDir()
	info := &Info{
		Root: e.root, IDs: idsInfo(e.ids),
		Cgroup:       CgroupInfo{string(group.Hierarchy), group.Path, group.Delegated, append([]string{}, group.Controllers...), group.Why},
		RuntimeDir:   Finding{Use: dir, Why: why},
		Kernel:       kernel(),
		Architecture: runtime.GOARCH,
		Seccomp:      seccompFinding(),
		Paths:        pathsFinding(),
		ByStatus:     map[string]int{},
	}
	if err := e.userNamespaces(ctx, info); err == nil {
		info.Overlay = e.overlayFinding(ctx)
		info.Proc = e.procFinding(ctx)
		info.Sysfs = e.sysfsFinding(ctx)
	}
	list, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	info.Images = len(list)
	cts, err := e.containers.List()
	if err != nil {
		return nil, err
	}
	info.Containers = len(cts)
	for _, ct := range cts {
		state, err := ct.State()
		if err != nil {
			state.Status = containers.Status("unknown")
		}
		info.ByStatus[string(state.Status)]++
	}
	return info, nil
}

func idsInfo(ids namespaces.IDs) IDsInfo {
	text := func(ranges []namespaces.Range) string {
		var parts []string
		for _, r := range ranges {
			parts = append(parts, fmt.Sprintf("%d..%d is host %d..%d", r.Inside, uint64(r.Inside)+uint64(r.Count)-1,
				r.Outside, uint64(r.Outside)+uint64(r.Count)-1))
		}
		return strings.Join(parts, ", ")
	}
	return IDsInfo{string(ids.Mode), ids.Why, text(ids.UIDs), text(ids.GIDs)}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (e *Engine) userNamespaces(ctx context.Context, info *Info) error {
	err := e.try(ctx, unix.CLONE_NEWUSER, nil)
	if err != nil {
		info.UserNamespaces = Finding{Use: "none", Why: err.Error(), Cost: "no container can be started"}
		none := Finding{Use: "unknown", Why: "no user namespace to try it in"}
		info.Overlay, info.Proc, info.Sysfs = none, none, none
		return err
	}
	limit, rerr := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if rerr != nil {
		limit = []byte("unknown")
	}
	info.UserNamespaces = Finding{Use: "available", Why: "user.max_user_namespaces=" + strings.TrimSpace(string(limit))}
	return nil
}

func (e *Engine) overlayFinding(ctx context.Context) Finding {
	err := e.tryOverlay(ctx)
	if err == nil {
		return Finding{Use: string(rootfs.Overlay), Why: "kernel overlayfs in a user namespace"}
	}
	if e.rootfsKind(true) == rootfs.OverlayTmpfs {
		return Finding{
			Use:  string(rootfs.OverlayTmpfs) + " for run --rm, else " + string(rootfs.Copy),
			Why:  "the data root lies on overlayfs, which can't carry the writable layer: " + err.Error(),
			Cost: "with --rm what a container writes takes memory; without, a copy of the image for each container",
		}
	}
	return Finding{Use: string(rootfs.Copy), Why: err.Error(), Cost: "a copy of the image for each container"}
}

func (e *Engine) procFinding(ctx context.Context) Finding {
	err := e.try(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWPID, rootfs.TryProc)
	if err == nil {
		return Finding{Use: "own instance"}
	}
	return Finding{Use: "the host's, read-only", Why: err.Error() + " (parts of the host's /proc are masked)",
		Cost: "containers see the host's processes in /proc, and can't write to theirs there"}
}

func (e *Engine) sysfsFinding(ctx context.Context) Finding {
	err := e.try(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWNET, rootfs.TrySysfs)
	if err == nil {
		return Finding{Use: "own instance, read-only"}
	}
	return Finding{Use: "the host's, read-only", Why: err.Error(), Cost: "containers see the host's network interfaces in /sys"}
}

func pathsFinding() Finding {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err == nil {
		_ = unix.Close(fd)
		return Finding{Use: "openat2"}
	}
	return Finding{Use: "walked component by component", Why: "openat2: " + err.Error(), Cost: "some more system calls a path"}
}

func seccompFinding() Finding {
	data, err := os.ReadFile("/proc/self/status")
	mode := "unknown"
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(line, "Seccomp:"); ok {
				mode = strings.TrimSpace(v)
			}
		}
	}
	f := Finding{Use: fmt.Sprintf("docker's default profile, %d instructions", len(confine.Filter(false)))}
	switch {
	case errors.Is(err, os.ErrNotExist), mode == "unknown":
		f.Why = "this kernel doesn't tell its seccomp mode"
	case mode != "0":
		f.Why = "nook itself runs below a filter of the host"
	}
	return f
}

// Section is a part of what nook info prints.
type Section struct {
	Title string
	Rows  [][2]string
}

// Sections is the info for a person.
func (i *Info) Sections() []Section {
	row := func(name string, f Finding) [][2]string {
		text := f.Use
		if f.Why != "" {
			text += " (" + f.Why + ")"
		}
		if f.Cost != "" {
			text += "\ncosts: " + f.Cost
		}
		return [][2]string{{name, text}}
	}
	ids := i.IDs.Mode
	if i.IDs.Why != "" {
		ids += " (" + i.IDs.Why + ")"
	}
	host := [][2]string{{"Kernel", i.Kernel + " " + i.Architecture}}
	host = append(host, row("User namespaces", i.UserNamespaces)...)
	host = append(host, row("Root file system", i.Overlay)...)
	host = append(host, row("/proc", i.Proc)...)
	host = append(host, row("/sys", i.Sysfs)...)
	host = append(host, row("Paths", i.Paths)...)
	host = append(host, row("Seccomp", i.Seccomp)...)
	cgroup := i.Cgroup.Hierarchy + ", not delegated"
	if i.Cgroup.Delegated {
		cgroup = i.Cgroup.Hierarchy + ", delegated: " + strings.Join(i.Cgroup.Controllers, " ")
	}
	host = append(host, [2]string{"Cgroup", cgroup + " (" + i.Cgroup.Why + ")"})
	store := [][2]string{
		{"Data root", i.Root},
		{"Runtime directory", i.RuntimeDir.Use + " (" + i.RuntimeDir.Why + ")"},
		{"Images", strconv.Itoa(i.Images)},
		{"Containers", strconv.Itoa(i.Containers)},
	}
	return []Section{
		{"Ids", [][2]string{{"Mode", ids}, {"Users", i.IDs.UIDs}, {"Groups", i.IDs.GIDs}}},
		{"Host", host},
		{"Store", store},
	}
}

// tryOverlay mounts an overlay as a container would, in the data root.
func (e *Engine) tryOverlay(ctx context.Context) error {
	dir, err := os.MkdirTemp(e.root, ".try-")
	if err != nil {
		return fmt.Errorf("try an overlay: %w", err)
	}
	defer os.RemoveAll(dir)
	var f fds
	defer f.close()
	at := func(name string) rootfs.Dir {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			f.fail(err)
		}
		return f.rootDir(dir, name)
	}
	r := &rootfs.Root{Kind: rootfs.Overlay, Dir: dir, Lowers: []rootfs.Dir{at("lower")}, Upper: at("upper"), Work: at("work")}
	if f.err != nil {
		return f.err
	}
	return e.try(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS, r.Mount)
}
