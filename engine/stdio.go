package engine

import (
	"golang.org/x/sys/unix"

	"nook/containers"
)

// stdio are the two sides of a container's standard streams: what pid 1 gets
// and what its monitor keeps; -1 for none.
type stdio struct {
	inside                [3]int
	stdin, stdout, stderr int
	ttyInside, ttyOutside int
}

func openStdio(f *fds, cfg *containers.Config) stdio {
	s := stdio{stdin: -1, stdout: -1, stderr: -1, ttyInside: -1, ttyOutside: -1}
	if cfg.TTY {
		s.ttyOutside, s.ttyInside = f.socketpair(unix.SOCK_SEQPACKET)
		return s
	}
	if cfg.OpenStdin {
		s.inside[0], s.stdin = f.pipe()
	} else {
		s.inside[0] = -1
	}
	s.stdout, s.inside[1] = f.pipe()
	s.stderr, s.inside[2] = f.pipe()
	return s
}
