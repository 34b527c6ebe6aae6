package logs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Watch tells when something happens in a container's directory, by
// inotify(7); where no more instances of that are to be had, it looks again
// and again.
//
//	w := logs.NewWatch(dir, reader.Ahead)
//	defer w.Close()
//	<-w.C
type Watch struct {
	// C gets a value after one or more events.
	C chan struct{}

	changed atomic.Bool
	begun   func()
	events  *os.File // nil: none to be had
	quit    chan struct{}
	loop    sync.WaitGroup
}

// pace is how long events are gathered after one was told: a container may
// write in thousands of pieces a second.
const pace = 2 * time.Millisecond

// pollEvery is how often a Watch without inotify looks.
const pollEvery = 100 * time.Millisecond

// NewWatch watches dir. begun is called in a goroutine of its own when a file
// of the log was begun.
func NewWatch(dir string, begun func()) *Watch {
	w := &Watch{C: make(chan struct{}, 1), begun: begun, quit: make(chan struct{})}
	events, err := inotify(dir)
	if err != nil {
		w.loop.Go(w.poll)
		return w
	}
	w.events = events
	w.loop.Go(w.read)
	return w
}

// Changed tells whether anything but the log changed since the last call.
func (w *Watch) Changed() bool { return w.changed.Swap(false) }

// Close ends the watch.
func (w *Watch) Close() {
	close(w.quit)
	if w.events != nil {
		_ = w.events.Close()
	}
	w.loop.Wait()
}

func inotify(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	const mask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("inotify_add_watch %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

func (w *Watch) read() {
	buf := make([]byte, 4<<10) // room for one event at least: 16 bytes and NAME_MAX + 1
	for {
		n, err := w.events.Read(buf)
		if err != nil {
			return
		}
		w.take(buf[:n])
		w.wake()
		select {
		case <-w.quit:
			return
		case <-time.After(pace):
		}
	}
}

// take looks at events: struct inotify_event { int wd; uint32_t mask, cookie,
// len; char name[]; }. A queue that overflowed is a change of anything.
func (w *Watch) take(data []byte) {
	const header, maskAt, lenAt = 16, 4, 12
	for len(data) >= header {
		mask := binary.NativeEndian.Uint32(data[maskAt:])
		end := header + int(binary.NativeEndian.Uint32(data[lenAt:]))
		name := string(bytes.TrimRight(data[header:end], "\x00"))
		data = data[end:]
		_, ours := number(name)
		switch {
		case ours && mask&unix.IN_CREATE != 0:
			w.begun()
		case ours && mask&unix.IN_MODIFY != 0:
		default:
			w.changed.Store(true)
		}
	}
}

func (w *Watch) wake() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

func (w *Watch) poll() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-tick.C:
			w.begun()
			w.changed.Store(true)
			w.wake()
		}
	}
}
