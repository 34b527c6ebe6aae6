package testenv

// Real servers, as Debian packages them: what people run in containers, with
// users, sockets, shared memory and processes of their own.

// NginxTar returns a Debian bookworm with nginx, as DebianTar does. bash is its
// web client: /dev/tcp.
func NginxTar() (string, error) {
	return debianTar("debian-bookworm-nginx", "nginx-light", slim()...)
}

// PostgresTar returns a Debian bookworm with PostgreSQL 15 and
// PostgresEntrypoint, as DebianTar does. It has no cluster, but a directory for
// one: PostgresData.
func PostgresTar() (string, error) {
	return debianTar("debian-bookworm-postgresql-15", "postgresql-15", append(slim(),
		`--essential-hook=mkdir -p "$1/etc/postgresql-common"; echo create_main_cluster = false >"$1/etc/postgresql-common/createcluster.conf"`,
		"--customize-hook=cat >\"$1"+PostgresEntrypoint+"\" <<'!'\n"+postgresEntrypoint+"!\n",
		`--customize-hook=chmod 755 "$1`+PostgresEntrypoint+`"; chroot "$1" install -d -o postgres -g postgres -m 700 `+PostgresData,
	)...)
}

// Paths in the image of PostgresTar.
const (
	PostgresEntrypoint = "/usr/local/bin/docker-entrypoint"
	PostgresData       = "/var/lib/postgresql/data"
)

// postgresEntrypoint is the official image's in short: the first start makes a
// cluster.
const postgresEntrypoint = `#!/bin/bash
set -eu
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	initdb --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8
fi
exec "$@"
`

// slim leaves out what no server reads.
func slim() []string {
	return []string{
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
	}
}
