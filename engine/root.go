package engine

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nook/cgroups"
	"nook/containers"
	"nook/namespaces"
	"nook/rootfs"
)

// rootFor describes the root file system of a container to pid 1, which has
// the layers open under the numbers that it is given.
func (e *Engine) rootFor(number func() int, ct containers.Container, cfg *containers.Config) (*rootfs.Root, error) {
	r := &rootfs.Root{
		Kind: rootfs.Kind(cfg.Rootfs), Dir: ct.Path, Volatile: cfg.Remove,
		ReadOnly: cfg.ReadOnly, OwnNet: cfg.Network != "host",
		CgroupV2: cgroups.Hierarchy() == cgroups.Unified,
		TTYGroup: e.ttyGroup(), ShmSize: shmOf(cfg), UpperSize: cfg.LayerSize, Exists: exists,
	}
	// Pid 1 opens them itself.
	at := func(elem ...string) rootfs.Dir { return rootfs.Dir{Path: filepath.Join(elem...), FD: number()} }
	switch r.Kind {
	case rootfs.Copy:
		r.Dir = filepath.Join(ct.Path, "rootfs")
	case rootfs.OverlayTmpfs:
		r.Upper.FD, r.Work.FD = number(), number()
		st, err := os.Stat(filepath.Join(ct.Path, "upper"))
		if err != nil {
			return nil, err
		}
		r.UpperMode = unixMode(st.Mode())
	default:
		r.Upper, r.Work = at(ct.Path, "upper"), at(ct.Path, "work")
	}
	if r.Kind != rootfs.Copy {
		for _, key := range cfg.Layers {
			r.Lowers = append(r.Lowers, at(e.layers.Dir(key)))
		}
		skeleton, err := e.skeleton()
		if err != nil {
			return nil, err
		}
		r.Lowers = append(r.Lowers, at(skeleton))
	}
	if err := e.addMounts(r, ct, cfg.Mounts); err != nil {
		return nil, err
	}
	r.Etc = etc(cfg)
	return r, nil
}

// skeleton is the lowest layer of all containers. Its last file tells that it
// is whole.
func (e *Engine) skeleton() (string, error) {
	dir := filepath.Join(e.root, "containers", ".skeleton")
	names := etcNames()
	if exists(filepath.Join(dir, "etc", names[len(names)-1])) {
		return dir, nil
	}
	return dir, rootfs.Skeleton(dir, names)
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for _, b := range []struct {
		goBit fs.FileMode
		bit   uint32
	}{{fs.ModeSetuid, unix.S_ISUID}, {fs.ModeSetgid, unix.S_ISGID}, {fs.ModeSticky, unix.S_ISVTX}} {
		if m&b.goBit != 0 {
			mode |= b.bit
		}
	}
	return mode
}

// ttyGroup is the group "tty" of every distribution, 5, where it exists.
func (e *Engine) ttyGroup() int {
	const tty = 5
	if e.ids.Mode == namespaces.Single {
		return -1
	}
	return tty
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// etcNames are the files of /etc that each container has for itself.
func etcNames() []string { return []string{"hosts", "hostname", "resolv.conf"} }

// etc is their content.
func etc(cfg *containers.Config) map[string]string {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	if cfg.Network == "host" {
		if data, err := os.ReadFile("/etc/hosts"); err == nil {
			hosts = string(data)
		}
	} else {
		hosts += "127.0.0.1\t" + cfg.Hostname + "\n"
	}
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil { // a host without one
		resolv = nil
	}
	return map[string]string{"hosts": hosts, "hostname": cfg.Hostname + "\n", "resolv.conf": string(resolv)}
}
