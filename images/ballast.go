package images

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"nook/internal/atomicfile"
)

// The ballast is a file without a meaning. On a disk that is full to the last
// block there is no room for an index without an image, and so none would ever
// be made; then the ballast goes, and comes back with the next index.

const (
	ballastFile = ".ballast"
	// ballastMore is how much longer it is than the index: a file takes whole
	// blocks, and so does the entry of its directory.
	ballastMore = 64 << 10
)

// replaceIndex writes the index, at the ballast's cost where there is no room
// for what makes some.
func (s *Store) replaceIndex(data []byte) error {
	write := func() error {
		return atomicfile.Write(s.path(indexFile), data, 0o600, atomicfile.Durable)
	}
	err := write()
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && s.isShorter(data) && os.Remove(s.path(ballastFile)) == nil {
		return write()
	}
	if err == nil {
		s.takeBallast(int64(len(data)) + ballastMore)
	}
	return err
}

func (s *Store) isShorter(data []byte) bool {
	info, err := os.Lstat(s.path(indexFile))
	return err == nil && int64(len(data)) < info.Size()
}

// takeBallast has size bytes, or nothing. A hole would be no ballast, and on
// some file systems neither would zeros be.
func (s *Store) takeBallast(size int64) {
	name := s.path(ballastFile)
	if info, err := os.Lstat(name); err == nil && info.Size() >= size {
		return
	}
	if os.WriteFile(name, bytes.Repeat([]byte{0xff}, int(size)), 0o600) != nil {
		_ = os.Remove(name)
	}
}
