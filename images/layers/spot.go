package layers

import (
	"context"
	"fmt"
	"io"
	"path"

	"golang.org/x/sys/unix"

	"nook/internal/treetar"
)

// file makes a regular file.
func (s *Spot) file(name string, look Look, size int64, fill func(fd int) error) (err error) {
	fd, err := unix.Openat(s.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer func() {
		if closed := unix.Close(fd); err == nil && closed != nil {
			err = fmt.Errorf("close: %w", closed)
		}
	}()
	if err := fill(fd); err != nil {
		return err
	}
	if err := s.m.dress(fd, look); err != nil {
		return err
	}
	s.m.count(size)
	if err := unix.UtimesNanoAt(fd, "", s.m.times(look.Time), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("utimensat: %w", err)
	}
	return nil
}

// File makes a regular file of a stream.
func (s *Spot) File(ctx context.Context, name string, look Look, size int64, content io.Reader) error {
	if err := s.clear(name); err != nil {
		return err
	}
	err := s.file(name, look, size, func(fd int) error {
		return treetar.Fill(ctx, fd, size, content, make([]byte, min(size+1, fileBuffer)))
	})
	if err == nil {
		s.m.own(path.Join(s.path, name), look)
	}
	return err
}

// Symlink makes a symlink where there is room for it.
func (s *Spot) Symlink(name, target string, look Look) error {
	if err := unix.Symlinkat(target, s.fd, name); err != nil {
		return fmt.Errorf("symlink: %w", err)
	}
	return s.named(name, look)
}

// Fifo makes a fifo where there is room for it.
func (s *Spot) Fifo(name string, look Look) error {
	if err := unix.Mknodat(s.fd, name, unix.S_IFIFO|0o600, 0); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := unix.Fchmodat(s.fd, name, look.Mode, 0); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return s.named(name, look)
}

// named sets what can be set of what can't be opened.
func (s *Spot) named(name string, look Look) error {
	if s.m.ids != Single && (look.UID != 0 || look.GID != 0) {
		if err := unix.Fchownat(s.fd, name, int(look.UID), int(look.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return ownerError(&attributes{uid: look.UID, gid: look.GID}, err)
		}
	}
	s.m.count(0)
	if err := unix.UtimesNanoAt(s.fd, name, s.m.times(look.Time), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("utimensat: %w", err)
	}
	return nil
}
