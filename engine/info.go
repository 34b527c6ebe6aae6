package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	Mounts         Finding        `json:"mounts"`
	Paths          Finding        `json:"paths"`
	Seccomp        Finding        `json:"seccomp"`
	Cgroup         CgroupInfo     `json:"cgroup"`
	RuntimeDir     Finding        `json:"runtimeDirectory"`
	Sockets        Finding        `json:"sockets"`
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
	Cost string `json:"cost,omitempty"`
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
	Cost        string   `json:"cost,omitempty"`
}

// Info looks at the host. Each mount is really tried, in namespaces that go
// away at once.
func (e *Engine) Info(ctx context.Context) (*Info, error) {
	group := cgroups.Detect()
	dir, why := RuntimeDir()
	info := &Info{
		Root: e.root, IDs: idsInfo(e.ids),
		Cgroup:       cgroupInfo(group),
		RuntimeDir:   Finding{Use: dir, Why: why},
		Sockets:      e.socketsFinding(dir),
		Mounts:       mountsFinding(),
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
	info := IDsInfo{Mode: string(ids.Mode), Why: ids.Why, UIDs: text(ids.UIDs), GIDs: text(ids.GIDs)}
	if ids.Mode == namespaces.Single {
		info.Cost = "containers have one id: chown and the like succeed without effect"
	}
	return info
}

func cgroupInfo(group cgroups.Detection) CgroupInfo {
	info := CgroupInfo{
		Hierarchy: string(group.Hierarchy), Path: group.Path, Delegated: group.Delegated,
		Controllers: append([]string{}, group.Controllers...), Why: group.Why,
	}
	if !group.Delegated {
		info.Cost = "no limits of memory, CPU and processes can be set"
	}
	return info
}

func mountsFinding() Finding {
	use, why := rootfs.MountsUsed()
	f := Finding{Use: use, Why: why}
	if why != "" {
		f.Cost = "a read-only bind of a directory with more mounts below it is refused"
	}
	return f
}

// socketsFinding makes a control socket as a monitor would.
func (e *Engine) socketsFinding(runtimeDir string) Finding {
	err := trySocket(e.root)
	if err == nil {
		return Finding{Use: "beside the record"}
	}
	if rerr := makeRuntimeDir(runtimeDir); rerr == nil && trySocket(runtimeDir) == nil {
		return Finding{Use: "in the runtime directory", Why: "the data root: " + err.Error(),
			Cost: "a container whose runtime directory is wiped is cut off from later commands"}
	}
	return Finding{Use: "none", Why: "the data root: " + err.Error(),
		Cost: "a container is reached by the command that started it and by no other"}
}

// trySocket binds a unix socket in a directory.
func trySocket(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	name := fmt.Sprintf("/proc/self/fd/%d/.try-%d.sock", fd, os.Getpid()) // a path has room for 107 bytes
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(sock)
	if err := unix.Bind(sock, &unix.SockaddrUnix{Name: name}); err != nil {
		return fmt.Errorf("bind a unix socket: %w", err)
	}
	_ = unix.Unlink(name)
	return nil
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

func (e *Engine) procFinding(ctx context.Context) Finding {
	hosts := Finding{Use: "the host's, read-only", Cost: "containers see the host's processes in /proc, and can't write to theirs there"}
	if !exists("/proc/sys") {
		hosts.Why = "the host's /proc shows processes alone"
		return hosts
	}
	err := e.try(ctx, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWPID, rootfs.TryProc)
	if err == nil {
		return Finding{Use: "own instance"}
	}
	hosts.Why = err.Error() + " (parts of the host's /proc are masked)"
	return hosts
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
	if i.IDs.Cost != "" {
		ids += "\ncosts: " + i.IDs.Cost
	}
	host := [][2]string{{"Kernel", i.Kernel + " " + i.Architecture}}
	host = append(host, row("User namespaces", i.UserNamespaces)...)
	host = append(host, row("Root file system", i.Overlay)...)
	host = append(host, row("/proc", i.Proc)...)
	host = append(host, row("/sys", i.Sysfs)...)
	host = append(host, row("Mounts", i.Mounts)...)
	host = append(host, row("Paths", i.Paths)...)
	host = append(host, row("Seccomp", i.Seccomp)...)
	cgroup := i.Cgroup.Hierarchy + ", not delegated"
	if i.Cgroup.Delegated {
		cgroup = i.Cgroup.Hierarchy + ", delegated: " + strings.Join(i.Cgroup.Controllers, " ")
	}
	host = append(host, row("Cgroup", Finding{cgroup, i.Cgroup.Why, i.Cgroup.Cost})...)
	store := [][2]string{
		{"Data root", i.Root},
		row("Runtime directory", i.RuntimeDir)[0],
		row("Control sockets", i.Sockets)[0],
		{"Images", strconv.Itoa(i.Images)},
		{"Containers", strconv.Itoa(i.Containers)},
	}
	return []Section{
		{"Ids", [][2]string{{"Mode", ids}, {"Users", i.IDs.UIDs}, {"Groups", i.IDs.GIDs}}},
		{"Host", host},
		{"Store", store},
	}
}
