package confine

import "golang.org/x/sys/unix"

// The profile is docker's, unchanged: default.json is default.json of the Go
// module github.com/moby/profiles/seccomp v0.2.4 (Apache-2.0), as docker 29
// embeds it. To follow a newer one, replace the file, run go generate, and read
// the diff of both.
//
//go:generate go run gen_seccomp.go

// Filter is docker's default seccomp profile for DefaultCaps, compiled for this
// architecture and the ABIs its kernel also offers (i386 and x32; arm).
// What is not in the profile gets EPERM; what is newer than the profile, and clone3, ENOSYS.
//
// With emulateOwners it is the filter for a container in which only one id
// exists: chown, setgroups and mknod of a device answer success without effect,
// also for a file that isn't there. mknod of anything else is made, and so is a
// whiteout (character device 0:0), which needs no privilege.
//
// The slice is the table itself and costs nothing; it must not be written to.
// Load it by seccomp(2) SECCOMP_SET_MODE_FILTER with no_new_privs set (or with
// CAP_SYS_ADMIN in the user namespace), last of all steps before execve: the
// profile refuses mount, unshare, setns and keyctl. runc adds
// SECCOMP_FILTER_FLAG_SPEC_ALLOW, which spares programs slow speculation
// barriers on kernels before 5.16.
func Filter(emulateOwners bool) []unix.SockFilter {
	if emulateOwners {
		return singleIDFilter[:]
	}
	return profileFilter[:]
}

// Arches lists the audit architectures (AUDIT_ARCH_*) that the filters know, the
// native one first. x32 is not listed: it shares amd64's, and differs by a bit
// of the number. A call by any other architecture ends the process.
func Arches() []uint32 { return arches[:] }
