package rootfs

import (
	"golang.org/x/sys/unix"

	"nook/internal/raw"
)

// Secret is a file in SecretsDir.
type Secret struct {
	Name     string // without a slash
	Content  []byte
	Mode     uint32
	UID, GID uint32
	// Owned says that UID and GID exist in the user namespace.
	Owned bool
}

// SecretsDir is where secrets are: a read-only tmpfs.
const SecretsDir = "/run/secrets"

const secretsFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// prepareSecrets adds a tmpfs with the secrets, which nobody else reaches: on
// the new /dev, not yet where it belongs. A volume mounted on /run may be
// another container's as well, and what is opened there by path is what that
// one made of it meanwhile.
func (r *Root) prepareSecrets(p *raw.Program) {
	if len(r.Secrets) == 0 {
		return
	}
	const dir = "/dev/.secrets"
	r.secrets = p.Register()
	p.Call("make "+dir, unix.SYS_MKDIRAT, unix.AT_FDCWD, dir, 0o755)
	p.Call("mount a tmpfs for secrets", unix.SYS_MOUNT, "tmpfs", dir, "tmpfs", secretsFlags, "mode=755")
	p.Call("open the secrets", unix.SYS_OPENAT, unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0).SaveTo(r.secrets)
	for _, s := range r.Secrets {
		p.Call("make secret "+s.Name, unix.SYS_OPENAT, r.secrets, s.Name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600).SaveTo(r.fd)
		p.Call("write secret "+s.Name, unix.SYS_WRITE, r.fd, s.Content, len(s.Content))
		if s.Owned {
			p.Call("change the owner of secret "+s.Name, unix.SYS_FCHOWN, r.fd, int(s.UID), int(s.GID))
		}
		p.Call("change the mode of secret "+s.Name, unix.SYS_FCHMOD, r.fd, int(s.Mode))
		p.Call("close secret "+s.Name, unix.SYS_CLOSE, r.fd)
	}
	p.Call("make the secrets read-only", unix.SYS_MOUNT, "", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|secretsFlags, 0)
}

// placeSecrets moves that tmpfs to SecretsDir, above what else is mounted.
func (r *Root) placeSecrets(p *raw.Program) {
	if len(r.Secrets) == 0 {
		return
	}
	r.mkdirAll(p, SecretsDir)
	// No magic link leads out, as no proc is mounted yet.
	p.Call("enter the secrets", unix.SYS_FCHDIR, r.secrets)
	p.Call("mount the secrets", unix.SYS_MOUNT, ".", SecretsDir, "", unix.MS_MOVE, 0)
	p.Call("enter /", unix.SYS_CHDIR, "/")
	p.Call("close the secrets", unix.SYS_CLOSE, r.secrets)
	// Something of the user's may hide it by now.
	p.Call("take away the first place of secrets", unix.SYS_UNLINKAT, unix.AT_FDCWD, "/dev/.secrets", unix.AT_REMOVEDIR).IgnoreAll()
}
