package testenv

// Real servers, as Debian packages them: what people run in containers, with
// users, sockets, shared memory and processes of its own.

// NginxTar returns a Debian bookworm with nginx, as DebianTar does. bash is its
// web client: /dev/tcp.
func NginxTar() (string, error) {
	return debianTar("debian-bookworm-nginx", "nginx-light", slim()...)
}

// PostgresTar returns a Debian bookworm with PostgreSQL 15, as DebianTar does.
// Its package makes no cluster at installation: an image has none.
func PostgresTar() (string, error) {
	return debianTar("debian-bookworm-postgresql-15", "postgresql-15", append(slim(),
		`--essential-hook=mkdir -p "$1/etc/postgresql-common"; echo create_main_cluster = false >"$1/etc/postgresql-common/createcluster.conf"`)...)
}

// slim leaves out what no server reads.
func slim() []string {
	return []string{
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
	}
}
