// Package integration tests the built binary from outside, as its user meets
// it: real images, an unprivileged user, a data root of its own for each test,
// and after each test nothing left of it.
//
//	go test ./integration                           everything
//	go test ./integration -short                    all but Debian and its servers
//	go test ./integration -run Scripts/mapped/run   one script in one id mode
//	go test ./integration -run Debian               the slow ones
//
// testdata/script holds a txtar script for each verb or subject; every one runs
// in both id modes, and once as root when root started the tests. Commands
// that the scripts have beyond testscript's own are described in
// commands_test.go.
//
// What a host refuses is played by refuse (a seccomp filter) and by unshare.
package integration
