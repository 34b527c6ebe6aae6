package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// bell rings when files of events change: inotify(7), or a clock where the
// user has used up their instances of it.
type bell struct {
	notify *os.File // nil: none is left
}

// glance is how long a reader without inotify looks away.
const glance = 200 * time.Millisecond

func newBell(root string) (*bell, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &bell{}, nil //nolint:nilerr // EMFILE, ENFILE, ENOMEM: the clock
	}
	b := &bell{os.NewFile(uintptr(fd), "inotify")}
	_, err = unix.InotifyAddWatch(fd, root, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM)
	switch {
	case errors.Is(err, unix.ENOSPC): // fs.inotify.max_user_watches
		b.close()
		return &bell{}, nil
	case err != nil:
		b.close()
		return nil, fmt.Errorf("watch %s: %w", root, err)
	}
	return b, nil
}

// watch rings for writes to f too, whatever it is called by then.
func (b *bell) watch(f *os.File) {
	if b == nil || b.notify == nil {
		return
	}
	conn, err := b.notify.SyscallConn()
	if err != nil {
		return
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	werr := conn.Control(func(fd uintptr) { _, err = unix.InotifyAddWatch(int(fd), path, unix.IN_MODIFY) })
	if errors.Join(err, werr) != nil {
		b.close()
		b.notify = nil
	}
}

// wait returns when something may have changed, when it is until, or when ctx
// ends. All but the last is nil.
func (b *bell) wait(ctx context.Context, until time.Time) error {
	if b.notify == nil {
		clock := time.NewTimer(glance)
		defer clock.Stop()
		select {
		case <-clock.C:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	if err := b.notify.SetReadDeadline(until); err != nil { // zero: none
		return fmt.Errorf("wait for events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = b.notify.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var buf [4096]byte
	_, err := b.notify.Read(buf[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("wait for events: %w", err)
	}
	return ctx.Err()
}

func (b *bell) close() {
	if b != nil && b.notify != nil {
		_ = b.notify.Close()
	}
}
