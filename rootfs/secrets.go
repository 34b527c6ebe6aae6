package rootfs

import (
	"path"

	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// Secret is a file in SecretsDir, or elsewhere.
type Secret struct {
	Name     string // without a slash
	Target   string // absolute; "": Name in SecretsDir
	Content  []byte
	Mode     uint32
	UID, GID uint32
	// Owned says that UID and GID exist in the user namespace.
	Owned bool
}

// SecretsDir is where secrets are: a read-only tmpfs.
const SecretsDir = "/run/secrets"

const secretsFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// The first places of what becomes SecretsDir, and of secrets elsewhere.
const (
	firstSecrets   = "/dev/.secrets"
	firstElsewhere = "/dev/.elsewhere"
)

// secretsIn gives those in SecretsDir, or those elsewhere.
func (r *Root) secretsIn(elsewhere bool) []Secret {
	var out []Secret
	for _, s := range r.Secrets {
		if (s.Target != "") == elsewhere {
			out = append(out, s)
		}
	}
	return out
}

// prepareSecrets adds a tmpfs with the secrets, which nobody else reaches: on
// the new /dev, not yet where it belongs. A volume mounted on /run may be
// another container's as well, and what is opened there by path is what that
// one made of it meanwhile. Those that belong elsewhere have one of their own,
// of which nothing but these files is ever seen.
func (r *Root) prepareSecrets(p *raw.Program) {
	if list := r.secretsIn(false); len(list) > 0 {
		r.secrets = r.fillSecrets(p, firstSecrets, list)
	}
	if list := r.secretsIn(true); len(list) > 0 {
		r.elsewhere = r.fillSecrets(p, firstElsewhere, list)
	}
}

func (r *Root) fillSecrets(p *raw.Program, dir string, list []Secret) raw.Reg {
	at := p.Register()
	p.Call("make "+dir, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o755)
	p.Call("mount a tmpfs for secrets", unix.SYS_MOUNT, "tmpfs", dir, "tmpfs", secretsFlags, "mode=755")
	p.Call("open the secrets", unix.SYS_OPENAT, unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).SaveTo(at)
	for _, s := range list {
		p.Call("make secret "+s.Name, unix.SYS_OPENAT, at, s.Name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600).SaveTo(r.fd)
		p.Call("write secret "+s.Name, unix.SYS_WRITE, r.fd, s.Content, len(s.Content))
		if s.Owned {
			p.Call("change the owner of secret "+s.Name, unix.SYS_FCHOWN, r.fd, int(s.UID), int(s.GID))
		}
		p.Call("change the mode of secret "+s.Name, unix.SYS_FCHMOD, r.fd, int(s.Mode))
		p.Call("close secret "+s.Name, unix.SYS_CLOSE, r.fd)
	}
	p.Call("make the secrets read-only", unix.SYS_MOUNT, "", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|secretsFlags, 0)
	return at
}

// placeSecrets moves that tmpfs to SecretsDir, above what else is mounted, and
// mounts each of the others on its place. No magic link leads out, as no proc is
// mounted yet.
func (r *Root) placeSecrets(p *raw.Program) {
	if len(r.secretsIn(false)) > 0 {
		r.mkdirAll(p, SecretsDir)
		p.Call("enter the secrets", unix.SYS_FCHDIR, r.secrets)
		p.Call("mount the secrets", unix.SYS_MOUNT, ".", SecretsDir, "", unix.MS_MOVE, 0)
		r.leaveSecrets(p, r.secrets, firstSecrets)
	}
	list := r.secretsIn(true)
	if len(list) == 0 {
		return
	}
	for _, s := range list {
		r.mkdirAll(p, path.Dir(s.Target))
		r.make(p, s.Target, false)
		p.Call("enter the secrets", unix.SYS_FCHDIR, r.elsewhere)
		// It is as read-only as the mount that it comes from.
		p.Call("mount secret "+s.Name+" on "+s.Target, unix.SYS_MOUNT, s.Name, s.Target, "", unix.MS_BIND, 0)
		p.Call("enter /", unix.SYS_CHDIR, "/")
	}
	p.Call("enter the secrets", unix.SYS_FCHDIR, r.elsewhere)
	p.Call("detach the secrets", unix.SYS_UMOUNT2, ".", unix.MNT_DETACH)
	r.leaveSecrets(p, r.elsewhere, firstElsewhere)
}

func (r *Root) leaveSecrets(p *raw.Program, at raw.Reg, first string) {
	p.Call("enter /", unix.SYS_CHDIR, "/")
	p.Call("close the secrets", unix.SYS_CLOSE, at)
	// Something of the user's may hide it by now.
	p.Call("take away the first place of secrets", unix.SYS_UNLINKAT, unix.AT_FDCWD, first, unix.AT_REMOVEDIR).IgnoreAll()
}
