//go:build cgo && !race

package main

// nook is one static binary. The Makefile builds it without cgo; but a plain
// `go run ./cmd/nook` on a machine that has a C compiler uses cgo in net and
// os/user, and its result would need a dynamic loader, which an image in
// which nook runs itself doesn't have (hello, run --init).
//
// glibc can't look users and hosts up in a static program, and its linker
// script says so at each build. What takes their place answers that nothing
// is known: nook asks neither. Users are read from the files of passwd(5), and
// hosts are resolved by Go (net.Resolver, PreferGo).

/*
#cgo LDFLAGS: -static
#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <pwd.h>
#include <stddef.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
	return EAI_NONAME;
}
void freeaddrinfo(struct addrinfo *list) {}
int getpwnam_r(const char *name, struct passwd *p, char *buf, size_t size, struct passwd **result) {
	*result = NULL;
	return ENOENT;
}
int getpwuid_r(uid_t uid, struct passwd *p, char *buf, size_t size, struct passwd **result) {
	*result = NULL;
	return ENOENT;
}
int getgrnam_r(const char *name, struct group *g, char *buf, size_t size, struct group **result) {
	*result = NULL;
	return ENOENT;
}
int getgrgid_r(gid_t gid, struct group *g, char *buf, size_t size, struct group **result) {
	*result = NULL;
	return ENOENT;
}
int getgrouplist(const char *user, gid_t group, gid_t *groups, int *count) {
	*count = 0;
	return -1;
}
*/
import "C"
